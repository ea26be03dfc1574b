"""Records given up on their way to a destination: retried, waited for, left to the next holder, or dropped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from model.errors import LeaseLostError, RefusedError, UnavailableError
from model.mapping import Extensions
from model.outcome import Delivered, FunctionFailed, PartlyFailed, Throttled
from model.progress import SaveResult, ShardState
from model.record import Batch, Records
from pollers.attempts import Work
from pollers.counters import Counters
from pollers.handing_over import ATTEMPT_S, Fate, HandingOver
from pollers.lane import lane_numbers
from pollers.retrying import Condition, Discard, RetryPolicy
from tests.support.pump_fakes import SHARD, FakeDestination, FakeLease, Raw, record
from tests.support.pump_rig import Rig

if TYPE_CHECKING:
    from model.outcome import Outcome
    from pollers.failure_document import Failure

pytestmark = pytest.mark.looptime

ONCE = RetryPolicy(maximum_retry_attempts=0)


class DestinationRig(Rig):
    """A pump whose mapping has an on-failure destination."""

    def __init__(self, count: int = 6, *, required: bool = True, **options: Any) -> None:
        self.destination = FakeDestination()
        extensions = Extensions(destination_required=required)
        super().__init__(
            count, **{"policy": ONCE, "destination": self.destination, "extensions": extensions, **options}
        )
        self.target.answer = poisoned(1)

    @property
    def account(self) -> tuple[int, int, int, int]:
        """What the stored ledger says: delivered, destination, dropped, in flight."""
        ledger = self.saves.progress.ledger
        assert ledger.balanced
        return ledger.delivered, ledger.destination, ledger.dropped, ledger.in_flight


def poisoned(*positions: int) -> Any:
    """Make an answer that fails every batch with one of these positions."""

    def answer(batch: list[int], _attempt: int) -> Outcome:
        return FunctionFailed("Boom", executed_version="7") if set(batch) & set(positions) else Delivered()

    return answer


async def test_exhausted_records_go_to_the_destination_and_the_shard_goes_on() -> None:
    """The ledger and the counter say `destination`, the checkpoint moves past, and nothing is dropped."""
    rig = DestinationRig(policy=RetryPolicy(maximum_retry_attempts=1))
    async with rig.running():
        await rig.until(lambda: rig.saved(6))
    assert rig.destination.positions == [[0, 1, 2]]
    assert rig.destination.taken[0].shard == SHARD
    assert rig.destination.taken[0].condition is Condition.RETRY_ATTEMPTS_EXHAUSTED
    assert rig.destination.taken[0].invocations == 2
    assert rig.account == (3, 3, 0, 0)
    assert (rig.counters.on_failure_destination_delivered, rig.counters.dropped) == (3, 0)


async def test_while_the_destination_is_away_the_batch_is_unfinished_and_status_says_why() -> None:
    """Nothing behind it is delivered, the checkpoint holds, reading pauses; afterwards everything goes on."""
    rig = DestinationRig(30)
    rig.destination.trouble = UnavailableError("queue away")
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.report.state is ShardState.WAITING)
        await asyncio.sleep(300)
        assert rig.target.calls == [[0, 1, 2]]
        report, account = rig.saves.progress.report, rig.counters.probes[SHARD]().ledger
        assert (report.state, report.last_error) == (ShardState.WAITING, "on-failure destination: queue away")
        assert rig.saves.progress.position is None
        assert account.balanced
        assert account.in_flight == account.polled <= 9
        errors = rig.counters.on_failure_destination_delivery_errors
        assert errors == len(rig.destination.attempts_at)
        rig.destination.trouble = None
        await rig.until(lambda: rig.saved(30))
        assert rig.saves.progress.report.last_error is None
        assert rig.saves.progress.report.state is ShardState.READING
    assert rig.destination.positions == [[0, 1, 2]]
    assert rig.account == (27, 3, 0, 0)


async def test_a_destination_that_refuses_asks_for_someone_to_act() -> None:
    """No such queue, no permission: the state is `failed`, an error is logged once, and it is tried again."""
    rig = DestinationRig()
    rig.destination.trouble = RefusedError("no such queue")
    with capture_logs() as logs:
        async with rig.running():
            await rig.until(lambda: rig.saves.progress.report.state is ShardState.FAILED)
            assert rig.saves.progress.report.last_error == "on-failure destination: no such queue"
            await rig.until(lambda: len(rig.destination.attempts_at) > 5)
            rig.destination.trouble = None
            await rig.until(lambda: rig.saved(6))
    told = [entry for entry in logs if entry["event"].startswith("destination.")]
    assert [(entry["event"], entry["log_level"]) for entry in told] == [
        ("destination.failed", "error"),
        ("destination.answers", "info"),
    ]


async def test_attempts_back_off_up_to_a_minute() -> None:
    """The delays double under full jitter, so a destination that is away for long is not hammered."""
    rig = DestinationRig()
    rig.destination.trouble = UnavailableError("away")
    async with rig.running():
        await asyncio.sleep(600)
    at = rig.destination.attempts_at
    delays = [later - earlier for earlier, later in pairwise(at)]
    assert all(delay <= min(60, 0.5 * 2**n) + 0.01 for n, delay in enumerate(delays))
    assert max(delays) > 30
    assert len(delays) < 60


async def test_a_destination_that_hangs_is_given_up_and_tried_again() -> None:
    """An attempt has a deadline, and is cancelled at it."""
    rig = DestinationRig()
    rig.destination.seconds = 1e6
    async with rig.running():
        await rig.until(lambda: len(rig.destination.attempts_at) == 2)
        assert rig.destination.running == 1
        expected = f"on-failure destination: a fake destination did not answer within {ATTEMPT_S:.0f} s"
        assert rig.saves.progress.report.last_error == expected
        rig.destination.seconds = 0
        await rig.until(lambda: rig.saved(6))
    assert rig.destination.positions == [[0, 1, 2]]


async def test_a_destination_that_is_not_required_loses_what_it_does_not_take() -> None:
    """`destination_required: false` is AWS's way: one failed delivery drops and counts the records."""
    rig = DestinationRig(required=False)
    rig.destination.trouble = UnavailableError("away")
    async with rig.running():
        await rig.until(lambda: rig.saved(6))
    assert len(rig.destination.attempts_at) == 1
    assert rig.account == (3, 0, 3, 0)
    assert (rig.counters.dropped, rig.counters.on_failure_destination_delivered) == (3, 0)
    assert rig.counters.on_failure_destination_delivery_errors == 1
    assert rig.saves.progress.report.last_error is None


async def test_a_drain_leaves_the_records_to_the_next_holder_who_does_not_invoke_again() -> None:
    """The attempts are stored: the next holder goes straight to the destination, and tells the same story."""
    rig = DestinationRig(9, policy=RetryPolicy(maximum_retry_attempts=1))
    rig.destination.trouble = UnavailableError("away")
    async with rig.running() as (pump, done):
        await rig.until(lambda: len(rig.destination.attempts_at) >= 3)
        drained_at = asyncio.get_running_loop().time()
        pump.drain()
        assert await done is False
        assert asyncio.get_running_loop().time() - drained_at < 1
    assert rig.account[3] > 0
    rig.target.calls.clear()
    rig.destination.trouble = None
    async with rig.running():
        await rig.until(lambda: rig.saved(9))
    assert rig.destination.positions == [[0, 1, 2]]
    assert rig.destination.taken[0].invocations == 2
    assert rig.destination.taken[0].outcome == FunctionFailed("before a restart", executed_version="7")
    assert rig.target.calls == [[3, 4, 5], [6, 7, 8]]
    assert rig.account == (6, 3, 0, 0)


async def test_a_next_holder_with_larger_batches_gives_up_only_what_failed() -> None:
    """Records that were never delivered do not share the fate of those that wait for the destination."""
    rig = DestinationRig(9)
    rig.destination.trouble = UnavailableError("away")
    async with rig.running():
        await rig.until(lambda: len(rig.destination.attempts_at) >= 2)
        await asyncio.sleep(1)
    rig.mapping = replace(rig.mapping, batch_size=100)
    rig.destination.trouble = None
    rig.target.calls.clear()
    async with rig.running():
        await rig.until(lambda: rig.saved(9))
    assert rig.destination.positions == [[0, 1, 2]]
    assert rig.target.calls == [[3, 4, 5, 6, 7, 8]]


async def test_a_lost_lease_ends_the_waiting() -> None:
    """Without trust in the lease nothing more is handed over: the next holder does it."""
    rig = DestinationRig()
    rig.destination.trouble = UnavailableError("away")
    async with rig.running() as (_, done):
        await rig.until(lambda: len(rig.destination.attempts_at) >= 2)
        rig.lease.lost = True
        attempts = len(rig.destination.attempts_at)
        with pytest.raises(LeaseLostError):
            await done
        assert len(rig.destination.attempts_at) == attempts


async def test_a_stale_token_ends_a_delivery_under_way() -> None:
    """Fenced out by the store in the middle of a hanging delivery, the pump stops at once."""
    rig = DestinationRig()
    rig.destination.seconds = 20
    async with rig.running() as (pump, done):
        await rig.destination.tried.wait()
        rig.saves.answer = SaveResult.STALE
        pump._standing.saves.changed()
        with pytest.raises(LeaseLostError):
            await done
        assert rig.destination.running == 0


async def test_expired_records_go_there_without_an_invocation() -> None:
    """RecordAgeExceeded: only the leading expired ones, the rest is delivered; throttles change nothing about it."""
    raws = [Raw(0), Raw(1), Raw(2, arrival_ms=2**45)]
    rig = DestinationRig(raws=raws, policy=RetryPolicy(maximum_record_age_s=60))
    rig.target.answer = lambda _, n: Throttled("busy") if n < 3 else Delivered()
    async with rig.running():
        await rig.until(lambda: rig.saved(3))
    assert rig.destination.positions == [[0, 1]]
    assert rig.destination.taken[0].condition is Condition.RECORD_AGE_EXCEEDED
    assert rig.target.calls == [[2]] * 3
    assert rig.account == (1, 2, 0, 0)


async def test_a_failing_lane_that_waits_for_the_destination_stalls_only_itself() -> None:
    """Other lanes go on while one waits; its trouble stays visible."""
    keys = [b"k%d" % n for n in range(50)]
    by_lane = dict(zip(lane_numbers(keys, 2), keys, strict=True))
    raws = [Raw(n, key=by_lane[n % 2]) for n in range(40)]
    rig = DestinationRig(raws=raws, lanes=2)
    rig.target.answer = poisoned(0)
    rig.destination.trouble = UnavailableError("away")
    async with rig.running():
        await rig.until(lambda: set(range(1, 40, 2)) <= set(rig.target.delivered()))
        await rig.until(lambda: rig.counters.probes[SHARD]().ledger.delivered == 20)
        await rig.until(lambda: rig.counters.probes[SHARD]().report.last_error == "on-failure destination: away")
        rig.destination.trouble = None
        await rig.until(lambda: rig.saved(40))
    assert rig.destination.positions == [[0, 2, 4]]
    assert rig.account == (37, 3, 0, 0)


async def test_cancelling_at_any_moment_loses_nothing() -> None:
    """Killed after each of many short delays: every record is delivered or at the destination; the books balance."""
    rig = DestinationRig(40, policy=RetryPolicy(maximum_retry_attempts=1, partial_responses=True, in_order=False))
    rig.target.seconds, rig.destination.seconds, rig.saves.slow_s = 0.013, 0.009, 0.007
    delivered: set[int] = set()

    def answer(batch: list[int], attempt: int) -> Outcome:
        if {4, 22} & set(batch):
            return FunctionFailed("Boom")
        failed = frozenset({batch[0]} if batch[0] % 9 == 0 and attempt == 1 else ())
        delivered.update(set(batch) - failed)
        return PartlyFailed(failed) if failed else Delivered()

    rig.target.answer = answer
    for step in range(1, 300):
        rig.destination.trouble = UnavailableError("away") if step % 3 else None
        async with rig.running():
            await asyncio.sleep(0.011 * step)
        if rig.saved(40):
            break
    assert rig.saved(40)
    handed = {position for positions in rig.destination.positions for position in positions}
    assert handed | delivered == set(range(40))
    assert {4, 22} <= handed
    counts = rig.account
    assert (counts[0] + counts[1], *counts[2:]) == (40, 0, 0)


def discard() -> Discard:
    """Make records that were given up."""
    records = Records.of([record(1), record(2)])
    return Discard(records, Condition.RETRY_ATTEMPTS_EXHAUSTED, Work(Batch(records, 30), 1, 1))


class Watch:
    """Remembers what operators would see."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def destination_failed(self, error: str, *, refused: bool, retry_in_s: float | None) -> None:
        """Note a failure."""
        self.seen.append((error, refused, retry_in_s is None))

    def destination_answers(self) -> None:
        """Note a success."""
        self.seen.append("answers")


async def test_every_attempt_tells_the_same() -> None:
    """Time, identity and records of a failure are fixed once, so that a retried object replaces itself."""
    destination, watch = FakeDestination(), Watch()
    seen: list[Failure] = []
    deliver = destination.deliver

    async def once_refused(failure: Failure) -> None:
        seen.append(failure)
        destination.trouble = RefusedError("no") if len(seen) == 1 else None
        await deliver(failure)

    destination.deliver = once_refused  # type: ignore[method-assign]
    handing_over = HandingOver(
        destination=destination, required=True, lease=FakeLease(), counters=Counters(), watch=watch,
        random=Random(1), draining=asyncio.Event(), now_ms=lambda: asyncio.get_running_loop().time() * 1000,
    )  # fmt: skip
    assert await handing_over.hand_over(discard()) is Fate.DESTINATION
    assert seen[0] is seen[1]
    assert watch.seen == [("no", True, False), "answers"]


async def test_a_node_that_drains_already_still_tries_once() -> None:
    """What an invocation under way at the drain gives up is handed over if the destination is there."""
    draining = asyncio.Event()
    draining.set()
    destination = FakeDestination()
    handing_over = HandingOver(
        destination=destination, required=True, lease=FakeLease(), counters=Counters(), watch=Watch(),
        random=Random(1), draining=draining,
    )  # fmt: skip
    assert await handing_over.hand_over(discard()) is Fate.DESTINATION
    destination.trouble = UnavailableError("away")
    assert await handing_over.hand_over(discard()) is None
    assert len(destination.attempts_at) == 2


async def test_a_mappings_parts_close_its_destination() -> None:
    """When the last shard of a mapping is gone, so are the connections made for it."""
    rig = DestinationRig()
    async with rig.running() as (pump, _):
        await pump._parts.close()
    assert rig.destination.closed
