"""The recording target as a process of its own, called by a real target."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from invocation.client import Targets
from invocation.settings import LambdaFunction, UrlFunction
from model.ids import MappingId, ShardId, ShardKey
from model.invocation import Invocation
from model.outcome import Delivered, FunctionFailed, Throttled
from tests.support.history import FAILED, OK, THROTTLED, Entry, Partition, check, read_log
from tests.support.targets import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def recording(log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a recording target and return its process and URL."""
    command = [sys.executable, "-m", "tests.support.recording_target", "--log", str(log), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.terminate()


def invocation(*offsets: int, attempt: int = 1) -> Invocation:
    """Make an invocation with a Kafka event."""
    records = [
        {"topic": "t", "partition": 3, "offset": offset, "timestamp": 0, "key": "a2V5", "value": "e30=", "headers": []}
        for offset in offsets
    ]
    event = msgspec.json.encode({"eventSource": "SelfManagedKafka", "records": {"t-3": records}})
    return Invocation(event, "orders", ShardKey(MappingId("0b1c"), ShardId("t-3")), 7, f"b-{offsets[0]}", attempt)


async def test_every_invocation_is_in_the_log_before_its_answer(tmp_path: Path) -> None:
    """What was answered is in the log with its identity, also when the target is killed right after."""
    log = tmp_path / "log"
    with recording(log) as (process, url):
        async with Targets(Secrets()) as targets:
            target = targets.make(UrlFunction("f", url))
            assert await target.invoke(invocation(0, 1)) == Delivered(b"null")
            assert await target.invoke(invocation(2, attempt=4)) == Delivered(b"null")
            process.kill()
            process.wait()
    first, second = read_log(log)
    assert (first.mapping, first.shard, first.token, first.batch) == ("orders", "0b1c/t-3", 7, "b-0")
    assert first.records == [Entry("t", 3, 0, "a2V5"), Entry("t", 3, 1, "a2V5")]
    assert (second.attempt, second.outcome) == (4, OK)
    assert first.started <= first.ended <= second.started
    assert check([first, second], {Partition("t", 3): range(3)}, overlaps=True).problems() == []


async def test_outcomes_follow_the_seed(tmp_path: Path) -> None:
    """Failures and throttles come at their rates, the same for the same seed, and the caller sees what the log says."""
    outcomes: list[list[str]] = []
    kinds = {Delivered: OK, FunctionFailed: FAILED, Throttled: THROTTLED}
    for run in range(2):
        log = tmp_path / f"log-{run}"
        options = ("--seed", "5", "--fail", "0.3", "--throttle", "0.2", "--latency-ms", "0.5")
        with recording(log, *options) as (process, url):
            async with Targets(Secrets()) as targets:
                target = targets.make(LambdaFunction("f", "f", url))
                seen = [kinds[type(await target.invoke(invocation(number)))] for number in range(100)]
            process.terminate()
            assert process.wait() == 0
        assert [invoked.outcome for invoked in read_log(log)] == seen
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]
    assert 15 <= outcomes[0].count(FAILED) <= 45
    assert 8 <= outcomes[0].count(THROTTLED) <= 35
