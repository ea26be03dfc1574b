"""Waiting for what a node needs."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from model.errors import SourceRefusedError, StoreUnavailableError
from model.problem import InvalidConfigurationError
from node.startup import NotReachedInTimeError, start_limit_s, wait_for, without_credentials

pytestmark = pytest.mark.looptime


async def test_a_component_that_is_there_is_not_mentioned() -> None:
    """No line and no pause when the first probe succeeds."""

    async def probe() -> None:
        return

    with capture_logs() as lines:
        await wait_for("Redis", probe)
    assert lines == []
    assert asyncio.get_running_loop().time() == 0


async def test_waiting_says_for_what_and_why_and_when_it_is_over() -> None:
    """The first failure is said with the limit, the success with the time it took."""
    loop = asyncio.get_running_loop()

    async def probe() -> None:
        if loop.time() < 5:
            raise StoreUnavailableError("connection refused")

    with capture_logs() as lines:
        await wait_for("Redis at redis://h:6379", probe, limit_s=60)
    assert [line["event"] for line in lines] == ["startup.waiting", "startup.reached"]
    waiting = lines[0]
    assert (waiting["what"], waiting["error"]) == ("Redis at redis://h:6379", "connection refused")
    assert waiting["gives_up_in_s"] == 60
    assert 5 <= lines[1]["after_s"] <= 7.5


async def test_a_long_wait_is_repeated_now_and_then() -> None:
    """The line comes again about every ten seconds, not with every probe."""

    async def probe() -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with capture_logs() as lines, pytest.raises(NotReachedInTimeError, match=r"Kafka .* within 45 s: .*refused"):
        await wait_for("Kafka", probe, limit_s=45)
    assert 4 <= len(lines) <= 5
    assert asyncio.get_running_loop().time() == pytest.approx(45)


async def test_a_probe_that_hangs_counts_as_no_answer() -> None:
    """A server that accepts and says nothing does not outlast the limit."""

    async def probe() -> None:
        await asyncio.Event().wait()

    with capture_logs(), pytest.raises(NotReachedInTimeError, match="no answer"):
        await wait_for("Redis", probe, limit_s=12)
    assert asyncio.get_running_loop().time() == pytest.approx(12, abs=0.2)


async def test_a_refusal_is_not_waited_out() -> None:
    """What will say no again is passed on at once."""

    async def probe() -> None:
        raise SourceRefusedError("wrong password")

    with pytest.raises(SourceRefusedError):
        await wait_for("Kafka", probe)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@h:6379/0?password=secret#secret", "redis://h:6379/0"),
        ("redis://:se@cret@h:6379", "redis://h:6379"),
        ("h:9092", "h:9092"),
        ("user:secret@h:9092", "h:9092"),
        ("redis://[bad", "(unreadable address)"),
    ],
)
def test_addresses_are_shown_without_credentials(url: str, shown: str) -> None:
    """Neither user name, password nor query survive."""
    assert without_credentials(url) == shown


async def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """ESMD_START_LIMIT says how long is waited; without it, a minute."""

    async def probe() -> None:
        raise StoreUnavailableError("connection refused")

    assert start_limit_s({}) == start_limit_s({"ESMD_START_LIMIT": ""}) == 60
    monkeypatch.setenv("ESMD_START_LIMIT", "2.5")
    with pytest.raises(NotReachedInTimeError, match=r"Redis could not be reached within 2\.5 s: connection refused"):
        await wait_for("Redis", probe)
    assert asyncio.get_running_loop().time() == pytest.approx(2.5)


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1 min"])
async def test_a_limit_that_is_no_number_is_refused(text: str) -> None:
    """A limit that cannot be read is a mistake in the configuration, with its place."""
    with pytest.raises(InvalidConfigurationError, match="ESMD_START_LIMIT"):
        start_limit_s({"ESMD_START_LIMIT": text})
