"""`make services`: starts the real servers for people, tests and benchmarks, prints their addresses, stops them.

Each server is one entry of `SERVICES`. It is started in turn by the main thread (embedded Redis wants a starter that
lasts) and announced as soon as it is ready, with `export` lines: ESMD_TEST_… make the tests use it instead of starting
their own, the others are what `esmd` and AWS's clients honour.
Ctrl-C or SIGTERM ends them, each by its own process id; so does the end of this process, however it comes.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from model.errors import EsmdError
from node.embedded_redis import EmbeddedRedis
from tests.support.elasticmq import ElasticMQ
from tests.support.kafka import KafkaProcess
from tests.support.kinesis_local import KinesisLocal
from tests.support.servers import ServerFailedError, ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready: where it is, and the variables that point tests and clients to it."""

    address: str
    variables: Mapping[str, str]


@contextlib.contextmanager
def redis() -> Iterator[Running]:
    """Run a private Redis."""
    with EmbeddedRedis(port=0) as server:
        yield Running(server.url, {"ESMD_REDIS_URL": server.url})


@contextlib.contextmanager
def kafka() -> Iterator[Running]:
    """Run Apache Kafka."""
    with KafkaProcess() as process:
        yield Running(process.bootstrap_servers, {"ESMD_TEST_KAFKA": process.bootstrap_servers})


@contextlib.contextmanager
def elasticmq() -> Iterator[Running]:
    """Run an SQS server."""
    with ElasticMQ() as server:
        yield Running(server.endpoint_url, {"AWS_ENDPOINT_URL_SQS": server.endpoint_url})


@contextlib.contextmanager
def kinesis() -> Iterator[Running]:
    """Run a Kinesis server."""
    with KinesisLocal() as server:
        yield Running(server.endpoint_url, {"AWS_ENDPOINT_URL_KINESIS": server.endpoint_url})


SERVICES: dict[str, Callable[[], AbstractContextManager[Running]]] = {
    "redis": redis,
    "kafka": kafka,
    "elasticmq": elasticmq,
    "kinesis-local": kinesis,
}


class _StopRequestedError(Exception):
    """Somebody wants the servers to end."""


def _stop_requested(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # once is enough: they are being ended
    raise _StopRequestedError


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _run(names: list[str]) -> int:
    """Start servers, wait for the signal, stop them; 1 if none could be started."""
    with contextlib.ExitStack() as running:
        started = 0
        for name in names:
            began_at = time.monotonic()
            try:
                service = running.enter_context(SERVICES[name]())
            except (ServerUnavailableError, ServerFailedError, EsmdError) as exc:
                sys.stderr.write(f"{name}: not started: {exc}\n")
                continue
            started += 1
            _say(f"{name}: {service.address}  (ready in {time.monotonic() - began_at:.1f} s)")
            for variable, value in service.variables.items():
                _say(f"export {variable}={value}")
        if not started:
            return 1
        _say("Ctrl-C stops them.")
        while True:
            signal.pause()


def main(arguments: list[str] | None = None) -> int:
    """Run the servers named, or all, until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="make services ARGS=…", description="Start real servers on free ports.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: {' '.join(SERVICES)})")
    names = parser.parse_args(arguments).names or list(SERVICES)
    if unknown := [name for name in names if name not in SERVICES]:
        parser.error(f"no such server: {', '.join(unknown)}; there are {', '.join(SERVICES)}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_requested)
    try:
        return _run(names)
    except _StopRequestedError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
