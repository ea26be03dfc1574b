"""A Kafka broker for a laptop, the demo and tests: the one inside confluent-kafka, in a process of its own.

librdkafka carries a mock cluster that speaks the Kafka wire protocol from memory. `EmbeddedKafka` starts it as a child
(`python -m node.embedded_kafka`), tells it which topics to have and ends it. The child also ends by itself when its
parent is gone, however that died: its standard input is a pipe from the parent, and it looks at its parent's id.
Real brokers for tests live in `tests.support.kafka`; producing and reading is the business of aiokafka.

What differs from Apache Kafka (librdkafka 2.16, seen with aiokafka 0.14):

- An empty fetch is answered only after its full max wait, even if a record arrives meanwhile, and answers of one
  connection keep their order. Use `fetch_max_wait_ms=FETCH_MAX_WAIT_MS` and measure no latencies here.
- A partition keeps 5 MiB (and 100,000 batches). Older batches are dropped at once, read or not: a reader that was
  overtaken gets OffsetOutOfRange. Two batches that together exceed 5 MiB can lose the newer one.
- A fetch returns one batch per partition. Nothing is on disk: data, offsets and topics end with the process.
- Looking up offsets by timestamp finds nothing (`offsets_for_times` answers None): AT_TIMESTAMP starts at the end.
- Topics come from `topics`/`create_topic` only. The CreateTopics request closes the connection, partitions cannot be
  added, and asking for the metadata of an unknown topic creates it with four partitions.
- Committed offsets work for groups without members (`assign()`), group membership too, but describing or listing groups
  does not, so the `kafka-consumer-groups` tool cannot be used. aiokafka commits only for assigned partitions.
- No TLS, no SASL, no quotas, no compaction; the transaction isolation level is ignored. Records, headers, null keys,
  tombstones, CreateTime timestamps and all four compressions come back byte for byte (message format 2 only).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import select
import sys
from typing import IO, TYPE_CHECKING, Any, Self

from model.errors import RefusedError, UnavailableError
from node import children

if TYPE_CHECKING:
    from collections.abc import Mapping

FETCH_MAX_WAIT_MS = 50  # the longest a reader of this broker should let a fetch wait
_BROKER_ID = 1
_WATCH_S = 1.0  # how often the child looks whether its parent still lives
_PRODUCER = 0  # rd_kafka_type_t
_NAME_BYTES = 249  # the longest topic name Kafka accepts


class EmbeddedKafka:
    """The broker's process. Use it as an async context manager, or `start` and `stop` it.

    `topics` maps names to partition counts. Stopping is safe twice, and safe when never started.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._topics = dict(topics or {})
        self._process: asyncio.subprocess.Process | None = None
        self._bootstrap_servers: str | None = None
        self._asked = 0
        self._asking = asyncio.Lock()

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of the running broker."""
        if self._bootstrap_servers is None:
            raise UnavailableError("the embedded Kafka broker is not running")
        return self._bootstrap_servers

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the broker and create its topics.

        Raises `RefusedError` (confluent-kafka is not installed, a topic is impossible) or `UnavailableError`.
        """
        if self._process is not None:
            raise RefusedError("the embedded Kafka broker was started twice")
        try:
            self._process = await children.start("node.embedded_kafka")
            self._bootstrap_servers = (await self._answer(0))["bootstrap_servers"]
            for name, partitions in self._topics.items():
                await self.create_topic(name, partitions)
        except BaseException:
            await self.stop()
            raise

    async def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic. Raises `RefusedError` if it exists or cannot be, `UnavailableError` if the broker is gone."""
        if not 0 < len(name.encode()) <= _NAME_BYTES or partitions < 1:
            raise RefusedError(f"Kafka topic {name!r} with {partitions} partitions: a topic has a name and a partition")
        await self._ask({"create_topic": name, "partitions": partitions})

    async def go_down(self) -> None:
        """Close every connection and refuse new ones, keeping all data: what a client sees of a broker's restart."""
        await self._ask({"answering": False})

    async def come_up(self) -> None:
        """Serve again, on the same port."""
        await self._ask({"answering": True})

    async def stop(self) -> None:
        """End the process and wait until it is gone."""
        process, self._process, self._bootstrap_servers = self._process, None, None
        if process is not None:
            await children.end(process)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _ask(self, request: dict[str, Any]) -> None:
        async with self._asking:
            if self._process is None or self._process.stdin is None:
                raise UnavailableError("the embedded Kafka broker is not running")
            self._asked += 1
            try:
                self._process.stdin.write(json.dumps(request | {"id": self._asked}).encode() + b"\n")
                await self._process.stdin.drain()
            except OSError as exc:
                raise UnavailableError("the embedded Kafka broker has ended") from exc
            await self._answer(self._asked)

    async def _answer(self, asked: int) -> dict[str, Any]:
        """Wait for the answer to one request, passing over answers whose asker was cancelled."""
        if self._process is None or self._process.stdout is None:
            raise UnavailableError("the embedded Kafka broker is not running")
        while line := await self._process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if answer["id"] == asked:
                if "refused" in answer:
                    raise RefusedError(f"the embedded Kafka broker refused: {answer['refused']}")
                return answer
        raise UnavailableError("the embedded Kafka broker has ended")


class _MockCluster:
    """librdkafka's mock cluster through its C interface: its Python binding offers no topics with partition counts."""

    def __init__(self) -> None:
        from confluent_kafka import cimpl  # noqa: PLC0415  # an optional dependency, and only the child loads it

        # The extension module is linked to the librdkafka of its wheel; names are looked up there too.
        self._lib = lib = ctypes.CDLL(cimpl.__file__)
        pointer, text, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "rd_kafka_conf_new": (pointer, []),
            "rd_kafka_conf_set": (integer, [pointer, text, text, text, ctypes.c_size_t]),
            "rd_kafka_new": (pointer, [integer, pointer, text, ctypes.c_size_t]),
            "rd_kafka_err2name": (text, [integer]),
            "rd_kafka_mock_cluster_new": (pointer, [pointer, integer]),
            "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
            "rd_kafka_mock_topic_create": (integer, [pointer, text, integer, integer]),
            "rd_kafka_mock_broker_set_down": (integer, [pointer, ctypes.c_int32]),
            "rd_kafka_mock_broker_set_up": (integer, [pointer, ctypes.c_int32]),
        }
        for name, (returns, takes) in signatures.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = returns, takes
        why = ctypes.create_string_buffer(512)
        conf = lib.rd_kafka_conf_new()
        lib.rd_kafka_conf_set(conf, b"log_level", b"0", why, len(why))  # standard error belongs to the parent's screen
        client = lib.rd_kafka_new(_PRODUCER, conf, why, len(why))
        if not client:
            raise OSError(why.value.decode())
        self._cluster = lib.rd_kafka_mock_cluster_new(client, _BROKER_ID)
        if not self._cluster:
            raise OSError("librdkafka could not start its broker")
        self.bootstrap_servers: str = lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int) -> str | None:
        """Create a topic; returns why not."""
        return self._why(self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1))

    def set_answering(self, *, answering: bool) -> str | None:
        """Go down or come up; returns why not."""
        change = self._lib.rd_kafka_mock_broker_set_up if answering else self._lib.rd_kafka_mock_broker_set_down
        return self._why(change(self._cluster, _BROKER_ID))

    def _why(self, code: int) -> str | None:
        return None if code == 0 else self._lib.rd_kafka_err2name(code).decode()


def _carry_out(cluster: _MockCluster, request: dict[str, Any]) -> str | None:
    if "create_topic" in request:
        why = cluster.create_topic(request["create_topic"], request["partitions"])
        return f"topic {request['create_topic']}: {why}" if why else None
    return cluster.set_answering(answering=request["answering"])


def _serve(parent: int, requests: IO[bytes], answers: IO[bytes]) -> int:
    """Run the broker until the parent closes its end or is gone. Runs in the child."""

    def answer(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document).encode() + b"\n")
        answers.flush()

    try:
        cluster = _MockCluster()
    except (ImportError, AttributeError, OSError) as exc:
        hint = "install esmd[embedded]" if isinstance(exc, ImportError) else "this confluent-kafka has no broker"
        answer({"id": 0, "refused": f"{exc}; {hint}"})
        return 1
    answer({"id": 0, "bootstrap_servers": cluster.bootstrap_servers})
    pending = b""
    while os.getppid() == parent:
        if not select.select([requests], [], [], _WATCH_S)[0]:
            continue
        read = os.read(requests.fileno(), 65536)
        if not read:
            break
        *lines, pending = (pending + read).split(b"\n")
        for line in lines:
            request = json.loads(line)
            why = _carry_out(cluster, request)
            answer({"id": request["id"]} | ({"refused": why} if why else {}))
    return 0


def main() -> None:
    """Run the child: requests come as lines of JSON on standard input, answers go to standard output."""
    parser = argparse.ArgumentParser(description="esmd's embedded Kafka broker; ends with its standard input.")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end when this is no longer the parent")
    status = 1
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        status = _serve(parser.parse_args().parent, sys.stdin.buffer, sys.stdout.buffer)
    os._exit(status)  # librdkafka's threads have nothing to finish, and its clean-up may wait for clients


if __name__ == "__main__":
    main()
