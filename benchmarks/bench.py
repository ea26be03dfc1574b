"""What all cases share in one run: options, CPUs, a working directory, servers that are started when first needed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from benchmarks.machine import Cpus
from benchmarks.processes import Child
from benchmarks.sink import Counts
from node.embedded_redis import EmbeddedRedis
from tests.support.elasticmq import ElasticMQ
from tests.support.embedded_broker import EmbeddedBroker
from tests.support.kafka import KafkaProcess
from tests.support.kafka_admin import KafkaAdmin
from tests.support.kinesis_local import KinesisLocal
from tests.support.moto_server import MotoServer
from tests.support.servers import free_ports, unique_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from benchmarks.results import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for."""

    rounds: int
    seconds: float  # that one round measures
    rate: float  # records per second, for latencies
    quick: bool  # only see that everything runs
    embedded: bool  # the embedded broker instead of Apache Kafka
    download: bool = True  # peers that need packages of their own, and with them


class Case(Protocol):
    """One row of the table, or a few that belong together."""

    @property
    def name(self) -> str:
        """The name for `--case`."""

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure."""


@dataclass(frozen=True, slots=True)
class Sink:
    """A running `benchmarks.sink`."""

    url: str
    log: Path | None
    child: Child

    def counts(self) -> Counts:
        """Ask it what came in so far."""
        with urllib.request.urlopen(f"{self.url}/count", timeout=10) as answer:  # noqa: S310  # our own server
            return msgspec.json.decode(answer.read(), type=Counts)


@dataclass(frozen=True, slots=True)
class NodeUnderTest:
    """A running `esmd run`, as an ordinary child process."""

    child: Child
    url: str

    def ask(self, path: str) -> tuple[int, Any]:
        """Return status and document of a GET; 0 while the node does not listen."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310  # our own server
                return answer.status, msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, None
        except OSError:
            return 0, None

    def ready(self) -> bool:
        """Whether it is a member, holds its share and has read positions."""
        return self.ask("/readyz")[0] == 200

    def held(self) -> dict[str, str]:
        """Return the owner of each shard that has one, as `status` tells, without trackers."""
        _, status = self.ask("/esmd/v1/status")
        return {
            shard["id"]: shard["owner"]
            for mapping in (status or {"mappings": []})["mappings"]
            for shard in mapping["shards"]
            if shard["owner"]
        }


class Bench:
    """One run. Use as a context manager; everything started through it ends with it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.cpus = Cpus.divide()
        self._running = contextlib.ExitStack()
        self._numbers = 0

    def __enter__(self) -> Self:
        self.home = Path(self._running.enter_context(tempfile.TemporaryDirectory(prefix="esmd-bench-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @cached_property
    def kafka(self) -> KafkaAdmin | EmbeddedBroker:
        """A broker of our own, or the one that `make services` runs."""
        if self.options.embedded:
            return self._running.enter_context(EmbeddedBroker())
        if running := os.environ.get("ESMD_TEST_KAFKA"):
            return KafkaAdmin(running)
        self.say("starting Apache Kafka")
        return KafkaAdmin(self._running.enter_context(KafkaProcess(heap_mb=1024)).bootstrap_servers)

    @cached_property
    def kinesis(self) -> str:
        """The address of a Kinesis server of our own."""
        self.say("starting kinesis-local")
        return self._running.enter_context(KinesisLocal()).endpoint_url

    @cached_property
    def moto(self) -> str:
        """The address of a server of DynamoDB of our own."""
        self.say("starting moto")
        return self._running.enter_context(MotoServer()).endpoint_url

    @cached_property
    def elasticmq(self) -> str:
        """The address of an SQS server of our own."""
        self.say("starting ElasticMQ")
        return self._running.enter_context(ElasticMQ()).endpoint_url

    def serve(self, module: str, arguments: Sequence[str]) -> str:
        """Run a module that serves until the end of the run; return the URL it prints."""
        child = Child(module, arguments, cpus=self.cpus.others, stdout=subprocess.PIPE)
        return self._running.enter_context(child).line(within_s=120)

    def say(self, text: str) -> None:
        """Tell the person who waits what is being done."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def redis(self) -> Iterator[str]:
        """Run a Redis that knows nothing yet; yield its URL."""
        with EmbeddedRedis(port=0) as server:
            yield server.url

    @contextlib.contextmanager
    def sink(self, *, log: bool = False, mark: str = '"offset":') -> Iterator[Sink]:
        """Run a sink that counts records by a mark."""
        path = self.path("sink.jsonl") if log else None
        arguments = ["--mark", mark, *(["--log", str(path)] if path is not None else [])]
        with Child("benchmarks.sink", arguments, cpus=self.cpus.others, stdout=subprocess.PIPE) as child:
            yield Sink(child.line(), path, child)

    @contextlib.contextmanager
    def node(
        self,
        mapping: Mapping[str, object] | None,
        *,
        redis: str,
        sink: str = "http://127.0.0.1:9",
        functions: Mapping[str, object] | None = None,
        name: str | None = None,
        ttl_s: int = 10,
        env: Mapping[str, str] | None = None,
        processes: int = 1,
    ) -> Iterator[NodeUnderTest]:
        """Run a node with one mapping, or none, and more functions besides `sink`.

        Without a `name` it is a mapping that never was: another run of the same name would go on where the first one's
        consumer group stands.
        """
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        config = {
            "redis": {"url": redis},
            "listen": listen,
            "data_dir": str(self.home / "data"),
            "drain_timeout": 5,
            "leasing": {"ttl": ttl_s},
            "functions": {"sink": {"url": sink, "timeout": 30}, **(functions or {})},
        }
        if mapping is not None:
            named = {"Name": name or unique_name("bench"), "FunctionName": "sink", **mapping}
            config["event_source_mappings"] = [named]
        path = self.path("node.yaml")
        path.write_bytes(msgspec.json.encode(config))
        arguments = ["run", "--processes", str(processes), str(path)]
        with Child("node", arguments, cpus=self.cpus.measured, env=env, log=self.path("node.log")) as child:
            yield NodeUnderTest(child, f"http://{listen}")

    def child(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        measured: bool,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> Child:
        """Start another module of ours, or another `command` under that name; the caller ends it."""
        cpus = self.cpus.measured if measured else self.cpus.others
        return Child(module, arguments, cpus=cpus, env=env, log=self.path(f"{module}.log"), command=command)

    def path(self, name: str) -> Path:
        """Return a place for a file that no other has."""
        self._numbers += 1
        return self.home / f"{self._numbers}-{name}"
