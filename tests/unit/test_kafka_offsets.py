"""Starting places, the group's mirror of checkpoints, and what errors mean."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from aiokafka import TopicPartition, errors
from structlog.testing import capture_logs

from model.errors import RefusedError, SourceRefusedError, SourceUnavailableError, UnavailableError
from pollers.sources import kafka_errors
from pollers.sources.kafka_offsets import GroupCommits

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class FakeGroup:
    """A consumer that commits into a list, slowly or not at all when told so."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []
        self.assigned = {A, B}
        self.failure: Exception | None = None
        self.answer = asyncio.Event()
        self.answer.set()

    def assignment(self) -> set[TopicPartition]:
        """Return what is assigned."""
        return self.assigned

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Take note, when allowed to answer."""
        await self.answer.wait()
        if self.failure is not None:
            raise self.failure
        self.commits.append(dict(offsets))


def opened(counts: list[int] | None = None) -> GroupCommits:
    """Make commits for two partitions that the group has nothing of."""
    noted = [] if counts is None else counts
    commits = GroupCommits(noted.append)
    for partition in (A, B):
        commits.opened(partition, None, begin=0)
    return commits


async def flush(commits: GroupCommits, group: Any) -> bool:
    """Commit what is due within a second."""
    return await commits.flush(group, within_s=1.0)


async def test_all_partitions_go_in_one_commit_and_only_once() -> None:
    """Checkpoints of several partitions are one request; without news there is none."""
    commits, group = opened(), FakeGroup()
    commits.note(A, 5)
    commits.note(A, 7)
    commits.note(B, 1)
    assert await flush(commits, group)
    assert await flush(commits, group)
    assert group.commits == [{A: 7, B: 1}]


async def test_commits_never_go_back() -> None:
    """What lies before the group's offset, or a former commit, is not committed; a fresh start forgets."""
    counts: list[int] = []
    commits, group = opened(counts), FakeGroup()
    commits.opened(A, 10, begin=10)
    commits.note(A, 9)
    await flush(commits, group)
    commits.note(A, 12)
    await flush(commits, group)
    commits.note(A, 11)
    await flush(commits, group)
    assert group.commits == [{A: 12}]
    assert counts == [2]
    commits.opened(A, None, begin=0)
    commits.note(A, 3)
    await flush(commits, group)
    assert group.commits[-1] == {A: 3}


@pytest.mark.looptime
async def test_what_was_committed_is_committed_again_once_a_minute() -> None:
    """A former holder's late commit may have taken the group back, and a quiet partition has no news."""
    counts: list[int] = []
    commits, group = opened(counts), FakeGroup()
    commits.opened(B, 7, begin=7)
    commits.note(A, 5)
    for _ in range(150):
        await flush(commits, group)
        await asyncio.sleep(1)
    assert group.commits == [{A: 5}, {A: 5, B: 7}, {A: 5, B: 7}]
    assert counts == [5]
    commits.note(A, 6)
    commits.forget(B)
    for _ in range(60):
        await flush(commits, group)
        await asyncio.sleep(1)
    assert group.commits[3:] == [{A: 6}, {A: 6}]


async def test_a_partition_given_up_is_committed_no_more() -> None:
    """Neither a forgotten partition nor one that is not assigned any more is committed."""
    commits, group = opened(), FakeGroup()
    commits.note(A, 5)
    commits.note(B, 5)
    commits.forget(A)
    group.assigned = {A}
    assert await flush(commits, group)
    assert group.commits == []


async def test_what_is_noted_during_a_commit_follows_in_the_next() -> None:
    """A checkpoint that arrives while a commit is under way is not lost."""
    commits, group = opened(), FakeGroup()
    group.answer.clear()
    commits.note(A, 5)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flush(commits, group))
        await asyncio.sleep(0)
        commits.note(A, 6)
        group.answer.set()
    assert await flush(commits, group)
    assert group.commits == [{A: 5}, {A: 6}]


@pytest.mark.looptime
async def test_failed_commits_stay_due_and_are_told_once() -> None:
    """A failure is logged when it changes, a hanging broker bounds the wait, and success commits what was due."""
    commits, group = opened(), FakeGroup()
    commits.note(A, 5)
    with capture_logs() as logs:
        group.failure = errors.CommitFailedError("others use this group")
        assert not await flush(commits, group)
        assert not await flush(commits, group)
        group.answer.clear()
        assert not await flush(commits, group)
        group.failure = None
        group.answer.set()
        assert await flush(commits, group)
    assert asyncio.get_running_loop().time() == pytest.approx(1.0)
    assert group.commits == [{A: 5}]
    assert [entry["event"] for entry in logs] == ["kafka.commit_failed", "kafka.commit_failed", "kafka.commit_restored"]


def tls(reason: str) -> ssl.SSLError:
    """Make an error as OpenSSL reports it."""
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (errors.SaslAuthenticationFailed("no"), kafka_errors.SASL_FAILED),
        (errors.UnsupportedSaslMechanismError("no"), kafka_errors.SASL_FAILED),
        (errors.TopicAuthorizationFailedError("t"), kafka_errors.NOT_AUTHORIZED),
        (errors.GroupAuthorizationFailedError("g"), kafka_errors.NOT_AUTHORIZED),
        (ssl.SSLCertVerificationError("unknown authority"), kafka_errors.SERVER_REJECTED),
        (tls("WRONG_VERSION_NUMBER"), kafka_errors.SERVER_REJECTED),
        (tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), kafka_errors.CLIENT_REJECTED),
    ],
)
def test_refusals_have_awss_texts(error: Exception, result: str) -> None:
    """Whatever wraps it, the cause decides the LastProcessingResult."""
    wrapped = errors.KafkaConnectionError("closed")
    wrapped.__cause__ = error
    for seen in (error, wrapped, ExceptionGroup("tasks", [wrapped])):
        meaning = kafka_errors.translate(seen, "topic t")
        assert isinstance(meaning, SourceRefusedError)
        assert meaning.result == result
        assert "topic t" in str(meaning)
        again = kafka_errors.again(meaning)
        assert (type(again), str(again), again.args) == (SourceRefusedError, str(meaning), meaning.args)


@pytest.mark.parametrize(
    "error",
    [errors.UnknownTopicOrPartitionError("t"), errors.CorruptRecordException("crc"), RefusedError("no such secret")],
)
def test_other_refusals_say_what_to_do(error: Exception) -> None:
    """A missing topic, an unreadable record and a missing secret will not mend themselves."""
    assert isinstance(kafka_errors.translate(error, "topic t"), SourceRefusedError)


@pytest.mark.parametrize(
    "error",
    [
        errors.KafkaConnectionError("refused"),
        ConnectionRefusedError(),
        TimeoutError(),
        ssl.SSLEOFError("closed"),
        UnavailableError("no secrets now"),
    ],
)
def test_what_passes_is_unavailability(error: Exception) -> None:
    """Networks, brokers and keepers of secrets that are away come back."""
    meaning = kafka_errors.translate(error, "topic t")
    assert isinstance(meaning, SourceUnavailableError)
    assert isinstance(kafka_errors.again(meaning), SourceUnavailableError)
