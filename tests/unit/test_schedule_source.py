"""A schedule as a source: which firing is next, what it looks like, and a pump that fires it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from model.errors import SourceRefusedError
from model.ids import MappingId, ShardId, ShardKey
from model.mapping import EventSourceMapping, MissedFirings, ScheduleSource
from model.outcome import Delivered, FunctionFailed
from model.progress import ShardProgress
from model.record import Places
from model.schedule import parse_schedule
from pollers.checkpointer import Checkpointer
from pollers.counters import Counters
from pollers.firings import Due, next_due, position_of, read_position
from pollers.pump import Pump
from pollers.pump_parts import PumpParts
from pollers.retrying import RetryPolicy
from pollers.seeking import Beginning
from pollers.sources.schedule import SHARD, Firing, Schedules
from pollers.sources.schedule_envelope import ScheduleBatchInfo, ScheduleEnvelope
from tests.support.pump_fakes import FakeLease, open_gate
from tests.support.saves import Saves

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.invocation import Invocation
    from model.outcome import Outcome

ID = MappingId("4f6e3f0e-0000-4000-8000-000000000001")
BEGIN_S = int(datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC).timestamp())
MINUTELY = parse_schedule("cron(* * * * ? *)")
ONCE, SKIP = MissedFirings.ONCE, MissedFirings.SKIP


def minute(number: int) -> int:
    """Return the epoch seconds of a minute after noon."""
    return BEGIN_S - 30 + 60 * number


@pytest.mark.parametrize(
    ("missed", "late_s", "expected"),
    [
        (ONCE, -40.0, Due(minute(1), 0)),  # it is still to come
        (ONCE, 0.0, Due(minute(1), 0)),
        (ONCE, 100.0, Due(minute(1), 0)),  # late, and not too late
        (ONCE, 101.0, Due(minute(1), 0, caught_up=True)),
        (ONCE, 3000.0, Due(minute(49), 48, caught_up=True)),  # those of the last 100 s are not missed
        (SKIP, -40.0, Due(minute(1), 0)),
        (SKIP, 100.0, Due(minute(1), 0)),
        (SKIP, 101.0, Due(minute(2), 1)),
        (SKIP, 3000.0, Due(minute(50), 49)),
    ],
)
def test_what_is_next_after_an_outage(missed: MissedFirings, late_s: float, expected: Due) -> None:
    """A firing is missed when it is later than the grace, here 100 s; then one stands for all, or none."""
    now_s = minute(1) + late_s
    assert next_due(MINUTELY, BEGIN_S, now_s=now_s, missed=missed, grace_s=100.0) == expected


@pytest.mark.parametrize("missed", [ONCE, SKIP])
def test_a_schedule_that_is_over_is_over(missed: MissedFirings) -> None:
    """After its last firing there is none, and one that was missed is caught up or skipped like others."""
    last = parse_schedule("cron(1 12 1 3 ? 2026)")
    late_s = minute(1) + 3000.0
    skipped = missed is SKIP
    assert next_due(last, BEGIN_S, now_s=late_s, missed=missed, grace_s=100.0) == Due(
        None if skipped else minute(1), int(skipped), caught_up=not skipped
    )
    assert next_due(last, minute(1), now_s=late_s, missed=missed, grace_s=100.0) == Due(None, 0)


def test_positions_tell_time_and_schedule() -> None:
    """The seconds are read back, and another schedule has another mark."""
    assert read_position(position_of(BEGIN_S, MINUTELY)) == (BEGIN_S, MINUTELY.mark)


def mapping(expression: str = "cron(* * * * ? *)", missed: MissedFirings = ONCE, given: bytes | None = None) -> Any:
    """Return a mapping named `nightly`."""
    source = ScheduleSource(expression, "UTC", missed, given)
    return EventSourceMapping(ID, "nightly", "f", source, batch_size=1, maximum_retry_attempts=2)


def envelope(given: bytes | None = None) -> ScheduleEnvelope:
    """Return the envelope of `nightly`."""
    return ScheduleEnvelope(mapping(given=given), partition="aws", region="eu-central-1", account_id="123456789012")


def test_the_event_is_eventbridges_scheduled_event() -> None:
    """Every field of EventBridge's document, and an id that is the same for the same firing."""
    place = Places([1])
    (event, again), (other, _) = (
        [json.loads(envelope().event(envelope().encode(SHARD, [Firing(at_s, at_s)], place))) for _ in range(2)]
        for at_s in (minute(0), minute(1))
    )
    assert event == again
    assert event["id"] != other["id"]
    del event["id"]
    assert event == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-03-01T12:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:events:eu-central-1:123456789012:rule/nightly"],
        "detail": {},
    }


@pytest.mark.parametrize("given", [None, b'{"a":[1,2]}', b'"x"', b"0"])
def test_the_size_of_an_event_is_known_before_it_is_made(given: bytes | None) -> None:
    """An event is one firing, or the input as it is, and `overhead` says what the batcher must count."""
    made = envelope(given)
    records = made.encode(SHARD, [Firing(minute(0), minute(0))], Places([1]))
    event = made.event(records)
    assert given in (None, event)
    assert records.size + made.overhead() == len(event)


def test_a_failure_document_names_the_firing() -> None:
    """Rule, expression, the time it was for, and when it was fired."""
    records = envelope().encode(SHARD, [Firing(minute(0), minute(3) + 0.5)], Places([1]))
    source = mapping().source
    assert ScheduleBatchInfo(source, "arn:rule").of_batch(SHARD, records, 9) == {
        "ruleArn": "arn:rule",
        "schedule": "cron(* * * * ? *)",
        "scheduledTime": "2026-03-01T12:00:00Z",
        "firedTime": "2026-03-01T12:03:00.500Z",
    }


@dataclass
class Function:
    """Remembers the times of its events; answers by `answer`, after `seconds`."""

    times: list[str] = field(default_factory=list)
    answer: Callable[[int], Outcome] = lambda _number: Delivered()
    seconds: float = 0.0

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Note the firing."""
        self.times.append(json.loads(invocation.event)["time"][11:16])
        await asyncio.sleep(self.seconds)
        return self.answer(len(self.times))


class Rig:
    """A pump on a schedule, in virtual time; what it saves stays from run to run."""

    def __init__(self, expression: str = "cron(* * * * ? *)", missed: MissedFirings = ONCE) -> None:
        self.mapping = mapping(expression, missed)
        self.saves = Saves()
        self.function = Function()
        self.counters = Counters()
        self.ahead_s = 0.0  # of the clock
        self.restarted = False

    def now_s(self) -> float:
        """Return the time by the node's clock, epoch seconds."""
        return BEGIN_S + asyncio.get_running_loop().time() + self.ahead_s

    async def run(self, seconds: float, *, drain: bool = True) -> None:
        """Let it fire for so long; then end it in order, or as if it was killed."""
        lease = FakeLease(key=ShardKey(ID, SHARD), progress=self.saves.progress)
        checkpointer = Checkpointer(self.saves)

        def missed(firings: int) -> None:
            self.counters.missed_firings += firings

        source = Schedules(self.mapping, count_missed=missed, function_timeout_s=40.0, now_s=self.now_s)
        parts = PumpParts(
            mapping=self.mapping,
            source=source,
            envelope=envelope(),
            filter=None,
            target=self.function,
            gate=open_gate(self.counters),
            policy=RetryPolicy.of(self.mapping, in_order=False),
            counters=self.counters,
            checkpointer=checkpointer,
            random=Random(1),
            now_s=self.now_s,
        )
        async with asyncio.TaskGroup() as tasks:
            saving = tasks.create_task(checkpointer.run())
            pump = Pump(parts, lease)  # type: ignore[arg-type]  # a fake lease
            running = tasks.create_task(pump.run())
            await asyncio.wait([running], timeout=seconds)
            self.restarted = running.done()
            if drain:
                pump.drain()
                await asyncio.wait([running])
            running.cancel()
            saving.cancel()


@pytest.mark.looptime
async def test_each_firing_is_delivered_at_its_time_and_checkpointed() -> None:
    """Three minutes make three events; the checkpoint is the last one, the next one is told, the books balance."""
    rig = Rig()
    await rig.run(170)
    assert rig.function.times == ["12:01", "12:02", "12:03"]
    saved = rig.saves.progress
    assert saved.position == str(position_of(minute(3), MINUTELY))
    assert (saved.report.next_s, saved.report.lag_s, saved.report.lag_records) == (minute(4), 0.0, 0)
    assert (saved.ledger.delivered, saved.ledger.balanced) == (3, True)


@pytest.mark.looptime
async def test_the_beginning_is_noted_before_the_first_firing() -> None:
    """A node that is killed before it fired leaves a place behind, so that the next one knows what was missed."""
    rig = Rig("rate(10 minutes)")
    await rig.run(5, drain=False)
    assert rig.saves.progress.position == str(position_of(BEGIN_S, parse_schedule("rate(10 minutes)")))
    rig.ahead_s = 590
    await rig.run(20)
    assert rig.function.times == ["12:10"]


@pytest.mark.looptime
async def test_a_firing_in_hand_when_its_node_is_killed_is_fired_again() -> None:
    """Also where missed firings are skipped: it was not missed."""
    rig = Rig(missed=SKIP)
    rig.function.seconds = 20
    await rig.run(40, drain=False)
    assert rig.function.times == ["12:01"]
    await rig.run(120)
    assert rig.function.times == ["12:01", "12:01", "12:02", "12:03"]
    assert rig.counters.missed_firings == 0


@pytest.mark.looptime
async def test_a_hand_over_repeats_nothing() -> None:
    """A drained node finishes the firing under way; the next one goes on behind it."""
    rig = Rig()
    rig.function.seconds = 20
    await rig.run(40)
    await rig.run(60)
    assert rig.function.times == ["12:01", "12:02"]


@pytest.mark.looptime
@pytest.mark.parametrize(("missed", "times", "counted"), [(ONCE, ["13:00"], 58), (SKIP, [], 59)])
async def test_an_outage_is_caught_up_once_or_skipped(missed: MissedFirings, times: list[str], counted: int) -> None:
    """An hour without a node: one firing, or none, then those of the last 100 s and the others at their times."""
    rig = Rig(missed=missed)
    await rig.run(40)
    assert rig.function.times == ["12:01"]
    rig.function.times.clear()
    rig.ahead_s = 3600 + 40  # it is 13:01:50 then
    await rig.run(30)
    assert rig.function.times == [*times, "13:01", "13:02"]
    assert rig.counters.missed_firings == counted
    assert rig.saves.progress.ledger.balanced


@pytest.mark.looptime
async def test_a_caught_up_firing_is_not_too_old() -> None:
    """A limit of age counts from when it could be fired at all."""
    rig = Rig()
    rig.mapping = EventSourceMapping(ID, "nightly", "f", rig.mapping.source, batch_size=1, maximum_record_age_s=300)
    await rig.run(5)
    rig.ahead_s = 7200
    await rig.run(10)
    assert rig.function.times[0] == "13:58"


@pytest.mark.looptime
async def test_a_failing_firing_is_retried_and_given_up() -> None:
    """Two retries, then it is dropped, and the next firing gets its turn."""
    rig = Rig()
    rig.function.answer = lambda number: FunctionFailed("Boom") if number <= 3 else Delivered()
    await rig.run(100)
    assert rig.function.times == ["12:01", "12:01", "12:01", "12:02"]
    ledger = rig.saves.progress.ledger
    assert (ledger.dropped, ledger.delivered, ledger.balanced) == (1, 1, True)


@pytest.mark.looptime
async def test_a_changed_schedule_begins_anew() -> None:
    """What the former one would have missed is nothing to catch up: the place is moved to now, durably, and it ends."""
    rig = Rig("rate(1 day)")
    await rig.run(5)
    rig.mapping = mapping("rate(1 minute)")
    rig.ahead_s = 3600
    await rig.run(5)
    assert rig.restarted
    assert rig.saves.updates[-1].rewind
    await rig.run(65)
    assert rig.function.times == ["13:01"]
    assert rig.counters.missed_firings == 0


@pytest.mark.looptime
async def test_a_schedule_that_is_over_waits() -> None:
    """It stays there for operators to see, without a next firing, and without spinning."""
    rig = Rig("cron(1 12 1 3 ? 2026)")
    await rig.run(3600)
    assert rig.function.times == ["12:01"]
    report = rig.saves.progress.report
    assert (report.next_s, report.last_error) == (None, None)


@pytest.mark.looptime
async def test_a_function_that_is_busy_longer_than_the_interval_is_not_called_twice_at_once() -> None:
    """Firings wait their turn; those that waited too long count as missed, and one stands for them."""
    rig = Rig()
    rig.function.seconds = 150
    await rig.run(1000)
    assert rig.function.times[:3] == ["12:01", "12:02", "12:03"]
    assert rig.counters.missed_firings > 0
    assert len(rig.function.times) == 7


@pytest.mark.looptime
async def test_the_clock_may_be_put_back() -> None:
    """What was fired is not fired again when the time comes a second time."""
    rig = Rig()
    await rig.run(100)
    assert rig.function.times == ["12:01", "12:02"]
    rig.ahead_s = -120
    await rig.run(100)
    assert rig.function.times == ["12:01", "12:02"]
    await rig.run(80)
    assert rig.function.times == ["12:01", "12:02", "12:03"]


async def test_there_is_one_shard() -> None:
    """Another one is refused."""
    source = Schedules(mapping(), count_missed=lambda _count: None)
    assert [shard.id for shard in await source.shards()] == [SHARD]
    with pytest.raises(SourceRefusedError, match="a schedule has one shard"):
        await source.reader(ShardId("other"), None, None)
    reader = await source.reader(SHARD, None, None)
    await reader.close()
    with pytest.raises(SourceRefusedError, match="is closed"):
        await reader.read(1)


async def test_a_schedule_is_not_moved() -> None:
    """It has no past to go back to; what to do instead is said."""
    rig = Rig()
    source = Schedules(rig.mapping, count_missed=lambda _count: None)
    (shard,) = await source.shards()
    with pytest.raises(SourceRefusedError, match="no positions to move to"):
        await source.find(shard, Beginning(), ShardProgress())
