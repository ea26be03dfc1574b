"""A small, fast function over HTTP that remembers every invocation in a file.

    python -m tests.support.recording_target --port 0 --log FILE [--seed N --fail 0.1 --throttle 0.05 --latency-ms 2]
                                             [--poison TOPIC-PARTITION:OFFSET] [--numbered]

Prints its URL once it listens and serves until SIGTERM. Each invocation becomes one line, a
`tests.support.history.Invoked`, written *before* the answer is sent and in one append to the file: whatever a daemon
takes for delivered is in the log, also when daemon and target are killed. Failing, throttling and latency follow the
seed. An event that holds a poison record always fails, until SIGUSR1 mends the function. SIGUSR2 makes it refuse all
that comes, half of it by 429 and half by a function error, until the next SIGUSR2.

Records are identified by Kafka's topic, partition and offset, or with `--numbered` by what they say themselves
(`tests.support.numbered`), whatever the source.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from tests.support import numbered
from tests.support.history import FAILED, OK, THROTTLED, Entry, Invoked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ANSWERS = {
    OK: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull",
    FAILED: (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Amz-Function-Error: Unhandled\r\n"
        b"Content-Length: 48\r\n\r\n"
        b'{"errorType":"Planted","errorMessage":"by seed"}'
    ),
    THROTTLED: b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
}


class Recorder:
    """Decides outcomes by seed and appends lines to the log."""

    def __init__(
        self,
        log: Path,
        *,
        seed: int = 0,
        fail: float = 0.0,
        throttle: float = 0.0,
        latency_ms: float = 0.0,
        poison: Iterable[str] = (),
        identify: Callable[[bytes], list[Entry]] | None = None,
    ) -> None:
        self._file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._random = Random(seed)
        self._fail, self._throttle, self._latency_s = fail, throttle, latency_ms / 1000
        self._encoder = msgspec.json.Encoder()
        self._poison = frozenset(poison)
        self._identify = identify or entries
        self._refusing = False

    def mend(self) -> None:
        """Take poison records too from now on."""
        self._poison = frozenset()

    def refuse(self) -> None:
        """Refuse all that comes from now on; called again, go on as before."""
        self._refusing = not self._refusing

    def close(self) -> None:
        """Close the log."""
        os.close(self._file)

    def decide(self) -> tuple[str, float]:
        """Return the next invocation's outcome and how long it takes in seconds."""
        draw = self._random.random()
        throttle, fail = (0.5, 0.5) if self._refusing else (self._throttle, self._fail)
        outcome = THROTTLED if draw < throttle else FAILED if draw < throttle + fail else OK
        return outcome, self._random.expovariate(1 / self._latency_s) if self._latency_s else 0.0

    def note(self, headers: dict[bytes, bytes], event: bytes, outcome: str, started: float) -> str:
        """Append the line of one invocation; return what came of it."""
        records = self._identify(event)
        if self._poison and any(f"{one.topic}-{one.partition}:{one.offset}" in self._poison for one in records):
            outcome = FAILED
        invoked = Invoked(
            started=started,
            ended=time.time(),
            mapping=headers.get(b"x-esmd-mapping", b"").decode(),
            shard=headers.get(b"x-esmd-shard", b"").decode(),
            token=int(headers.get(b"x-esmd-fencing-token", b"0")),
            batch=headers.get(b"x-esmd-batch-id", b"").decode(),
            attempt=int(headers.get(b"x-esmd-attempt", b"0")),
            outcome=outcome,
            records=records,
        )
        line = self._encoder.encode(invoked) + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError("the log's disk is full")
        return outcome


class _KafkaRecord(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    key: str | None = None


class _KafkaEvent(msgspec.Struct):
    records: dict[str, list[_KafkaRecord]] = {}


_EVENT = msgspec.json.Decoder(_KafkaEvent)


def entries(event: bytes) -> list[Entry]:
    """Return the identities of a Kafka event's records."""
    batches = _EVENT.decode(event).records.values()
    return [Entry(r.topic, r.partition, r.offset, r.key) for batch in batches for r in batch]


class _Connection(asyncio.Protocol):
    """Reads requests with Content-Length, one after the other, and nothing else of HTTP."""

    def __init__(self, recorder: Recorder, timers: set[asyncio.TimerHandle]) -> None:
        self._recorder = recorder
        self._timers = timers
        self._buffer = bytearray()
        self._needed = 0  # bytes of the current request, 0: its head is not complete
        self._headers: dict[bytes, bytes] = {}
        self._head_size = 0
        self._started = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._next():
            pass

    def _next(self) -> bool:
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._started = time.time()
            lines = bytes(self._buffer[:end]).split(b"\r\n")[1:]
            self._headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            self._head_size = end + 4
            self._needed = self._head_size + int(self._headers.get(b"content-length", b"0"))
        if len(self._buffer) < self._needed:
            return False
        event = bytes(self._buffer[self._head_size : self._needed])
        del self._buffer[: self._needed]
        self._needed = 0
        self._invoked(event)
        return True

    def _invoked(self, event: bytes) -> None:
        outcome, latency_s = self._recorder.decide()
        if not latency_s:
            self._finish(self._headers, event, outcome, self._started)
            return

        def later(headers: dict[bytes, bytes], started: float) -> None:
            self._timers.discard(timer)
            self._finish(headers, event, outcome, started)

        timer = asyncio.get_running_loop().call_later(latency_s, later, self._headers, self._started)
        self._timers.add(timer)

    def _finish(self, headers: dict[bytes, bytes], event: bytes, outcome: str, started: float) -> None:
        outcome = self._recorder.note(headers, event, outcome, started)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_ANSWERS[outcome])


async def serve(recorder: Recorder, port: int, listening: asyncio.Future[int], stop: asyncio.Event) -> None:
    """Serve until `stop` is set; `listening` gets the port."""
    timers: set[asyncio.TimerHandle] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(recorder, timers), "127.0.0.1", port, backlog=1024)
    listening.set_result(server.sockets[0].getsockname()[1])
    try:
        await stop.wait()
    finally:
        server.close()
        for timer in timers:
            timer.cancel()


async def _main(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    recorder = Recorder(
        arguments.log,
        seed=arguments.seed,
        fail=arguments.fail,
        throttle=arguments.throttle,
        latency_ms=arguments.latency_ms,
        poison=arguments.poison,
        identify=numbered.entries if arguments.numbered else None,
    )
    loop.add_signal_handler(signal.SIGUSR1, recorder.mend)
    loop.add_signal_handler(signal.SIGUSR2, recorder.refuse)
    listening: asyncio.Future[int] = loop.create_future()
    with contextlib.closing(recorder):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(recorder, arguments.port, listening, stop))
            print(f"http://127.0.0.1:{await listening}", flush=True)  # noqa: T201 whoever started us waits for it


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="A function that records its invocations.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fail", type=float, default=0.0, help="share of invocations that fail")
    parser.add_argument("--throttle", type=float, default=0.0, help="share of invocations answered with 429")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="mean time an invocation takes")
    parser.add_argument("--numbered", action="store_true", help="records are KEY:NUMBER, of any source")
    parser.add_argument("--poison", action="append", default=[], help="TOPIC-PARTITION:OFFSET of a record that fails")
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
