"""`make services`, as a process: what it prints, and that it ends what it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient

from tests.support.processes import wait_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def services(*names: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the servers until they are ready; gives the process and the variables it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.services", *names], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            variables = {}
            for line in process.stdout:
                if line.startswith("export "):
                    name, _, value = line.removeprefix("export ").strip().partition("=")
                    variables[name] = value
                if line.startswith("Ctrl-C"):
                    break
            yield process, variables
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_redis_is_announced_and_ended(how: signal.Signals) -> None:
    """The printed address serves; a signal ends the server, the caller's own death too."""
    with services("redis") as (process, variables):
        with redis.Redis.from_url(variables["ESMD_REDIS_URL"]) as client:
            assert client.ping()
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        os.kill(process.pid, how)
        assert process.wait(30) == (-signal.SIGKILL if how is signal.SIGKILL else 0)
    for child in children:
        wait_gone(child)


@pytest.mark.usefixtures("real_kafka")  # skips where there is no Java
def test_every_server_is_announced_and_ended() -> None:
    """Without names all servers start, are reachable where it says, and end with an interrupt."""
    with services() as (process, variables):
        with redis.Redis.from_url(variables["ESMD_REDIS_URL"]) as client:
            assert client.ping()
        metadata = AdminClient({"bootstrap.servers": variables["ESMD_TEST_KAFKA"]}).list_topics(timeout=10)
        assert list(metadata.brokers) == [1]
        for variable in ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_KINESIS"):
            assert variables[variable].startswith("http://127.0.0.1:")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    for child in children:
        wait_gone(child)


def test_an_unknown_server_is_refused() -> None:
    """A name that does not exist is bad usage, and the message lists those that do."""
    command = [sys.executable, "-m", "tests.support.services", "nosuch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such server: nosuch; there are redis, kafka, elasticmq, kinesis-local" in done.stderr


def test_a_server_that_cannot_be_had_is_explained(tmp_path: Path) -> None:
    """Without Java the reason is printed, and with nothing started the status says so."""
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("JAVA_HOME", None)
    command = [sys.executable, "-m", "tests.support.services", "kafka"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "kafka: not started: `java` is not on PATH: install" in done.stderr
