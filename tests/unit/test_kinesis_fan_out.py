"""A shard being read by subscriptions: renewal, waiting one's turn, trouble, and what is held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from invocation.classify import Answer, Failure, FailureKind
from model.errors import SourceRefusedError, SourceUnavailableError
from pollers.sources.kinesis_api import KinesisRecord, Page
from pollers.sources.kinesis_fan_out_pace import CALL_S
from pollers.sources.kinesis_subscription import SILENCE_S, FanOutUnsupportedError
from tests.support.event_stream import exception, initial_response, shard_event
from tests.support.fan_out_rig import BASE, LOST, Rig, brings, refusal
from tests.support.fan_out_script import ScriptedAnswer
from tests.support.kinesis_script import row

pytestmark = pytest.mark.looptime

END = shard_event(children=["shardId-000000000001"])


async def test_a_subscription_is_renewed_behind_what_kinesis_said_when_it_ends() -> None:
    """Renewal goes on at the continuation, which moves on quiet shards too; the records come in order, once."""
    rig = Rig(
        ScriptedAnswer(initial_response(), brings(1, 2), 4.0, brings(go_on=7)),
        ScriptedAnswer(brings(8, 9)),
        after=0,
    )
    assert await rig.take() == [1, 2]
    assert await rig.take() == [8, 9]
    assert rig.started() == [0, 7]
    assert all(start["Type"] == "AFTER_SEQUENCE_NUMBER" for start in rig.starts)


async def test_without_a_checkpoint_the_first_subscription_begins_at_the_origin() -> None:
    """And so does the next, as long as nothing came; a continuation of 0 says nothing."""
    rig = Rig(ScriptedAnswer(shard_event(go_on="0")), ScriptedAnswer(brings(1)))
    assert await rig.take() == [1]
    assert rig.starts == [{"Type": "TRIM_HORIZON"}, {"Type": "TRIM_HORIZON"}]


async def test_the_end_of_a_closed_shard_comes_after_its_last_record() -> None:
    """With child shards: what was received is handed out, then the end, again and again, and nobody subscribes more."""
    answer = ScriptedAnswer(brings(1, 2), END, then_silence=True)
    rig = Rig(answer)
    assert await rig.take() == [1, 2]
    assert await rig.reader.read() is None
    assert await rig.reader.read() is None
    assert answer.closed
    assert (len(rig.starts), rig.owner.held) == (1, 0)


async def test_records_and_the_end_in_one_event() -> None:
    """The records come first."""
    rig = Rig(ScriptedAnswer(shard_event([row(1)], children=["shardId-000000000001"])))
    assert await rig.take() == [1]
    assert await rig.reader.read() is None


async def test_no_shard_is_subscribed_to_more_than_once_a_second() -> None:
    """However soon the subscriptions end."""
    rig = Rig(*[ScriptedAnswer(brings(number)) for number in range(1, 6)])
    for number in range(1, 6):
        assert await rig.take() == [number]
    assert rig.gaps == [CALL_S] * 4


async def test_another_ones_turn_is_waited_out() -> None:
    """A hand-over: the predecessor's subscription is younger than five seconds. Nobody is told."""
    in_use = refusal("ResourceInUseException")
    rig = Rig(in_use, in_use, ScriptedAnswer(exception("ResourceInUseException")), in_use, ScriptedAnswer(brings(1)))
    assert await rig.take() == [1]
    assert rig.gaps == [CALL_S] * 4


async def test_another_ones_turn_that_does_not_end_is_told() -> None:
    """After ten seconds; the pump then waits and calls again."""
    rig = Rig(*[refusal("ResourceInUseException")] * 12, ScriptedAnswer(brings(1)))
    with pytest.raises(SourceUnavailableError, match="ResourceInUse"):
        await rig.take()
    assert asyncio.get_running_loop().time() == pytest.approx(11)  # the first call that is ten seconds late
    with pytest.raises(SourceUnavailableError, match="ResourceInUse"):
        await rig.take()
    assert await rig.take() == [1]


async def test_a_subscription_taken_by_another_is_told_in_the_log() -> None:
    """Two mappings, or two fleets, on one consumer: each takes it from the other."""
    rig = Rig(ScriptedAnswer(brings(1), exception("ResourceInUseException")), ScriptedAnswer(brings(2)))
    with capture_logs() as logged:
        assert await rig.take() == [1]
        assert await rig.take() == [2]
    assert [(entry["event"], entry["log_level"]) for entry in logged] == [("kinesis.subscription_taken", "warning")]


async def test_throttling_is_waited_out_longer_each_time_and_told_only_when_it_lasts() -> None:
    """A throttle now and then is nobody's business; ten seconds of it are."""
    rig = Rig(*[refusal("LimitExceededException")] * 2, ScriptedAnswer(brings(1)))
    assert await rig.take() == [1]
    assert rig.gaps == [2.2, 4.4]
    rig = Rig(*[refusal("LimitExceededException")] * 9)
    with pytest.raises(SourceUnavailableError, match="LimitExceeded"):
        await rig.take()
    assert rig.gaps == [2.2, 4.4, 5.0]


@pytest.mark.parametrize("said", [LOST, brings(9)[:-3], exception("InternalFailureException"), b"garbage" * 9])
async def test_a_subscription_that_breaks_is_renewed_behind_the_last_complete_event(said: bytes | Failure) -> None:
    """A cut in the middle of an event, a reset, Kinesis's own fault: the next subscription repeats nothing."""
    rig = Rig(ScriptedAnswer(brings(1, 2), said), ScriptedAnswer(brings(3)))
    assert await rig.take() == [1, 2]
    assert await rig.take() == [3]
    assert rig.started() == [None, 2]


async def test_a_silent_subscription_is_given_up() -> None:
    """Fifteen seconds without an event, when one should come every five."""
    rig = Rig(ScriptedAnswer(brings(1), then_silence=True), ScriptedAnswer(brings(2)))
    assert await rig.take() == [1]
    assert await rig.take() == [2]
    assert rig.gaps == [SILENCE_S]


async def test_silence_is_not_counted_while_nobody_reads() -> None:
    """The function takes ten minutes over a batch: what came meanwhile is still there."""
    rig = Rig(ScriptedAnswer(brings(1), 5.0, brings(2)))
    assert await rig.take() == [1]
    await asyncio.sleep(600)
    assert await rig.take() == [2]
    assert len(rig.starts) == 1


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([Failure(FailureKind.REFUSED)], SourceUnavailableError),
        ([ScriptedAnswer(LOST)], SourceUnavailableError),
        ([ScriptedAnswer(then_silence=True)], SourceUnavailableError),
        ([ScriptedAnswer()], SourceUnavailableError),
        ([refusal("ResourceNotFoundException")], SourceRefusedError),
        ([ScriptedAnswer(exception("KMSDisabledException"))], SourceRefusedError),
    ],
    ids=["no connection", "cut", "silence", "nothing at all", "no consumer", "no key"],
)
async def test_trouble_before_the_first_event_is_told_and_so_is_its_end(
    script: list[Any], error: type[Exception]
) -> None:
    """The pump backs off; then the first answer is told even if it is empty."""
    rig = Rig(*script, ScriptedAnswer(shard_event(go_on="1"), brings(4)), after=0)
    with pytest.raises(error):
        await rig.take()
    assert await rig.take() == []
    assert await rig.take() == [4]


async def test_a_place_that_cannot_be_gone_on_from_is_given_up_for_the_last_record() -> None:
    """An emulator's continuation need not be good for anything."""
    rig = Rig(
        ScriptedAnswer(brings(1, go_on=5)),
        refusal("InvalidArgumentException"),
        refusal("InvalidArgumentException"),
        ScriptedAnswer(brings(2)),
    )
    assert await rig.take() == [1]
    with pytest.raises(SourceRefusedError):
        await rig.take()
    assert await rig.take() == [2]
    assert rig.started() == [None, 5, 1, 1]


@pytest.mark.parametrize(
    "script",
    [
        [refusal("UnknownOperationException")],
        [Answer(501, {}, b"")],
        [ScriptedAnswer(kind="text/html")],
        [Answer(500, {}, b"<html>")] * 3,
        [Answer(500, {}, b"<html>"), refusal("LimitExceededException"), *[Answer(404, {}, b"")] * 2],
    ],
    ids=["unknown", "501", "HTML", "thrice no Kinesis", "with a throttle between"],
)
async def test_an_endpoint_that_cannot_do_it_is_found_out(script: list[Any]) -> None:
    """At once where it says so, after the third answer that is not Kinesis's otherwise."""
    rig = Rig(*script)
    with pytest.raises(FanOutUnsupportedError):
        await rig.take()
    assert not rig.opener.script


async def test_strange_answers_between_good_ones_are_an_accident() -> None:
    """A proxy that stumbles does not end fan-out."""
    strange = Answer(500, {}, b"<html>")
    rig = Rig(strange, strange, ScriptedAnswer(brings(1)), strange, strange, ScriptedAnswer(brings(2)))
    assert await rig.take() == [1]
    assert await rig.take() == [2]


# --- the end of a shard that nobody tells ---


@pytest.mark.parametrize(
    "said", [[shard_event(go_on="1")], [], [shard_event(go_on="1"), LOST]], ids=["quiet", "nothing", "quiet and lost"]
)
async def test_a_shard_whose_end_is_not_told_is_found_to_be_over(said: list[Any]) -> None:
    """A subscription whose last event brought nothing makes the reader ask by polling, behind the last record."""
    rig = Rig(ScriptedAnswer(brings(1)), ScriptedAnswer(*said))
    rig.api.page = Page([], None)
    assert await rig.take() == [1]
    assert await rig.reader.read() is None
    assert rig.api.iterators == [str(BASE + 1)]


async def test_a_subscription_that_brought_records_and_then_nothing_leaves_the_same_doubt() -> None:
    """The records may have been the shard's last."""
    rig = Rig(ScriptedAnswer(brings(1), brings(go_on=2)))
    rig.api.page = Page([], None)
    assert await rig.take() == [1]
    assert await rig.reader.read() is None
    assert len(rig.starts) == 1


@pytest.mark.parametrize(
    "page",
    [
        Page([], "more"),
        Page([KinesisRecord("9", None, "k")], None),  # type: ignore[arg-type]  # its data does not matter
        SourceRefusedError("not permitted"),
        SourceUnavailableError("away"),
    ],
    ids=["open", "a record left", "not permitted", "no answer"],
)
async def test_a_quiet_shard_that_is_not_over_is_subscribed_to_again(page: Page | Exception) -> None:
    """Whatever the question comes to, only a clear answer ends a shard."""
    rig = Rig(ScriptedAnswer(brings(go_on=1)), ScriptedAnswer(brings(2)))
    rig.api.page = page
    assert await rig.take() == [2]


# --- what is held ---


async def test_nothing_is_received_while_there_is_no_room() -> None:
    """The readers of the source hold as much as they may together; an event that has begun is received to its end."""
    event = brings(1)
    answer = ScriptedAnswer(event[:20], 1.0, event[20:])
    rig = Rig(answer)
    rig.owner.room.clear()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(rig.take())
        await asyncio.sleep(60)
        assert answer.reads == 0
        rig.owner.room.set()
        await answer.reading.wait()
        rig.owner.room.clear()
        await asyncio.sleep(0.5)
        assert rig.owner.held == 20
    assert reading.result() == [1]


async def test_nothing_is_received_unless_asked_for() -> None:
    """One event at a time: the next one stays with the other side."""
    answer = ScriptedAnswer(brings(1, 2, 3), brings(4))
    rig = Rig(answer)
    assert await rig.take() == [1, 2, 3]
    assert (answer.reads, rig.owner.held) == (1, 0)
    assert await rig.take() == [4]
    await rig.reader.close()
    assert answer.closed


async def test_lag_is_what_kinesis_says_and_records_are_counted_only_at_the_end() -> None:
    """Nothing before the first event; nothing made up in between."""
    rig = Rig(ScriptedAnswer(brings(1, behind_ms=5000), brings(2, 3), then_silence=True))
    lags = [rig.reader.lag()]
    for _ in range(2):
        await rig.take()
        lags.append(rig.reader.lag())
    assert [(lag.records, lag.seconds) for lag in lags] == [(None, None), (None, 5.0), (0, 0.0)]
    assert lags[-1].retention_s == 86_400.0


# --- cancelled and closed ---


async def test_a_read_cancelled_at_any_await_loses_nothing_and_repeats_nothing() -> None:
    """Cancelled after each number of steps: the records come out once, in order, over no more subscriptions."""
    first, second = brings(1, 2), brings(3)
    for steps in range(12):
        rig = Rig(
            refusal("ResourceInUseException"),
            ScriptedAnswer(first[:30], 1.0, first[30:], second[:30]),
            ScriptedAnswer(second, then_silence=True),
        )
        found: list[int] = []
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(rig.take())
            for _ in range(steps):
                await asyncio.sleep(0.25)
            reading.cancel()
        if not reading.cancelled():
            found += reading.result()
        while len(found) < 3:
            found += await rig.take()
        assert found == [1, 2, 3]
        await rig.reader.close()


async def test_a_subscription_cancelled_on_its_way_is_made_again() -> None:
    """Kinesis may have taken the call: then it is another one's turn for a while, which is waited out."""
    lost = ScriptedAnswer(brings(1))
    rig = Rig(lost, refusal("ResourceInUseException"), ScriptedAnswer(brings(1)))
    rig.opener.blocked = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(rig.take())
        await rig.opener.called.wait()
        reading.cancel()
    rig.opener.blocked = None
    assert rig.opener.script.popleft() is lost
    assert await rig.take() == [1]


async def test_a_closed_reader_reads_no_more() -> None:
    """Closing is safe twice."""
    rig = Rig(ScriptedAnswer(brings(1, 2)))
    await rig.take()
    await rig.reader.close()
    await rig.reader.close()
    with pytest.raises(SourceRefusedError, match="closed"):
        await rig.take()
