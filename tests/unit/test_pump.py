"""A pump at work over fakes: order, budgets, checkpoints, faults."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from model.errors import (
    LeaseLostError,
    SourceRefusedError,
    SourceRestartedError,
    SourceUnavailableError,
)
from model.ids import Position
from model.outcome import Delivered, FunctionFailed, PartlyFailed, Throttled
from model.progress import SaveResult, ShardState
from model.record import Records
from pollers.lane import lane_numbers
from pollers.retrying import RetryPolicy
from tests.support.pump_fakes import SHARD, FakeEnvelope, Raw
from tests.support.pump_rig import Odd, Rig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.record import Places

pytestmark = pytest.mark.looptime


async def test_everything_is_delivered_in_order_and_checkpointed() -> None:
    """The main path: batches of BatchSize, then the checkpoint behind the last record, mirrored to the source."""
    rig = Rig(10)
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
    assert rig.target.delivered() == list(range(10))
    assert max(len(call) for call in rig.target.calls) == 3
    assert rig.source.readers[0].mirrored[-1] == "10"
    assert rig.saves.progress.ledger.delivered == 10
    assert rig.saves.progress.ledger.balanced
    assert rig.source.readers[0].closed


async def test_an_incomplete_batch_waits_for_its_window() -> None:
    """With a window of 5 s two records wait 5 s, counted from the first poll."""
    rig = Rig(2, window_s=5)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    async with rig.running():
        await rig.target.called.wait()
    assert loop.time() - began_at == pytest.approx(5, abs=0.1)
    assert rig.target.calls == [[0, 1]]


async def test_a_failing_batch_holds_the_checkpoint_until_it_succeeds() -> None:
    """Nothing behind a failing batch is delivered in a shard with one lane."""
    rig = Rig(9)
    rig.target.answer = lambda p, n: FunctionFailed("Boom") if 3 in p and n < 6 else Delivered()
    async with rig.running():
        await rig.until(lambda: len(rig.target.calls) == 4)
        assert rig.saves.progress.position == "3"
        await rig.until(lambda: rig.saved(9))
    assert rig.target.calls == [[0, 1, 2]] + [[3, 4, 5]] * 6 + [[6, 7, 8]]
    assert rig.counters.failed_invoke == 15
    assert rig.saves.progress.report.last_result == "OK"


async def test_every_attempt_at_the_same_records_carries_one_batch_id_and_the_token() -> None:
    """Targets can fence and deduplicate."""
    rig = Rig(3)
    rig.target.answer = lambda _, n: Throttled("busy") if n < 3 else Delivered()
    async with rig.running():
        await rig.until(lambda: rig.saved(3))
    assert len({i.batch_id for i in rig.target.invocations}) == 1
    assert [i.attempt for i in rig.target.invocations] == [1, 2, 3]
    assert {i.token for i in rig.target.invocations} == {7}
    assert rig.counters.throttles == 2


async def test_exhausted_records_are_dropped_and_counted() -> None:
    """After MaximumRetryAttempts the batch is given up and the shard goes on."""
    rig = Rig(6, policy=RetryPolicy(maximum_retry_attempts=1))
    rig.target.answer = lambda p, _: FunctionFailed("Boom") if 0 in p else Delivered()
    async with rig.running():
        await rig.until(lambda: rig.saved(6))
    assert rig.target.calls == [[0, 1, 2]] * 2 + [[3, 4, 5]]
    assert (rig.saves.progress.ledger.dropped, rig.saves.progress.ledger.delivered) == (3, 3)
    assert rig.counters.dropped == 3


async def test_what_the_source_has_deleted_meanwhile_is_given_up() -> None:
    """Without limits of its own a mapping retries as long as the source has the records, and then goes on."""
    rig = Rig(9)
    rig.target.answer = lambda p, _: FunctionFailed("Boom") if 4 in p else Delivered()
    async with rig.running():
        await rig.until(lambda: rig.target.calls.count([3, 4, 5]) == 5)
        rig.source.readers[0].first = 5
        await rig.until(lambda: rig.saved(9))
    assert [call for call in rig.target.calls if call[0] > 3] == [[5], [6, 7, 8]]
    assert rig.saves.progress.ledger.dropped == rig.counters.dropped == 2


async def test_filtered_records_move_the_checkpoint_without_an_invocation() -> None:
    """A filter that keeps nothing still advances the shard; kept and filtered records balance."""
    rig = Rig(10, filtered=Odd())
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
    assert rig.target.delivered() == [1, 3, 5, 7, 9]
    assert rig.saves.progress.ledger.filtered == 5
    assert rig.saves.progress.ledger.balanced
    rig = Rig(raws=[Raw(n) for n in range(0, 20, 2)], filtered=Odd())
    async with rig.running():
        await rig.until(lambda: rig.saved(19))
    assert rig.target.calls == []


async def test_a_crash_repeats_no_more_than_what_was_in_flight_and_unsaved() -> None:
    """Killed anywhere, the next holder begins at the checkpoint; nothing is lost, at most two batches repeat."""
    for calls in range(1, 11):
        rig = Rig(30)
        rig.saves.slow_s = 0.05
        rig.target.seconds = 0.02
        async with rig.running():
            await rig.until(lambda rig=rig, calls=calls: len(rig.target.calls) >= calls)  # type: ignore[misc]
        before = rig.target.delivered()
        rig.target.calls.clear()
        async with rig.running():
            await rig.until(lambda rig=rig: rig.saved(30))  # type: ignore[misc]
        after = rig.target.delivered()
        assert sorted(set(before + after)) == list(range(30))
        assert after == list(range(after[0], 30))
        assert len(before) + len(after) - 30 <= 2 * 3
        assert rig.saves.progress.ledger.delivered == 30
        assert rig.saves.progress.ledger.balanced


async def test_a_drain_finishes_the_invocation_under_way_and_starts_no_other() -> None:
    """What was delivered is saved; what was not stays for the next holder."""
    rig = Rig(30)
    rig.target.seconds = 5
    async with rig.running() as (pump, done):
        await rig.target.called.wait()
        pump.drain()
        await done
    assert rig.target.calls == [[0, 1, 2]]
    assert rig.saves.progress.position == "3"
    assert rig.saves.progress.ledger.balanced
    assert rig.source.readers[0].closed


async def test_a_drain_does_not_wait_for_a_backoff() -> None:
    """A failing batch is left to the next holder, with the attempts it has used."""
    rig = Rig(3, policy=RetryPolicy(maximum_retry_attempts=4))
    rig.target.answer = lambda _p, _n: FunctionFailed("Boom")
    loop = asyncio.get_running_loop()
    async with rig.running() as (pump, done):
        await rig.until(lambda: len(rig.target.calls) == 3)
        drained_at = loop.time()
        pump.drain()
        await done
        assert loop.time() - drained_at < 1
    async with rig.running():
        await rig.until(lambda: rig.saved(3))
    assert len(rig.target.calls) == 5


async def test_nothing_is_invoked_once_the_lease_is_not_trusted() -> None:
    """The lease is checked right before each invocation."""
    rig = Rig(9)
    rig.target.seconds = 1
    async with rig.running() as (_, done):
        await rig.target.called.wait()
        rig.lease.lost = True
        with pytest.raises(LeaseLostError):
            await done
    assert len(rig.target.calls) == 1


async def test_a_stale_token_ends_the_pump_in_the_middle_of_an_invocation() -> None:
    """Fenced out by the store, the pump stops at once and writes nothing more."""
    rig = Rig(9)
    rig.target.seconds = 0.05
    async with rig.running() as (_, done):
        await rig.until(lambda: len(rig.target.calls) >= 1)
        rig.saves.answer = SaveResult.STALE
        rig.target.seconds = 1000
        with pytest.raises(LeaseLostError, match="stale"):
            await done


async def test_without_the_store_work_stops_after_what_may_run_ahead() -> None:
    """While checkpoints cannot be written, only bounded work goes on; afterwards everything does."""
    rig = Rig(30)
    rig.target.seconds = 0.05
    async with rig.running():
        await rig.until(lambda: len(rig.target.calls) >= 2)
        rig.saves.away = True
        await asyncio.sleep(20)
        stalled = len(rig.target.calls)
        await asyncio.sleep(20)
        assert len(rig.target.calls) == stalled < 10
        rig.saves.away = False
        await rig.until(lambda: rig.saved(30))
    assert rig.target.delivered() == list(range(30))


async def test_a_resolved_start_is_durable_before_anything_is_delivered() -> None:
    """LATEST resolved to an offset survives a crash before the first batch."""
    rig = Rig(10, default=Position("4"))
    rig.saves.slow_s = 1
    async with rig.running():
        await rig.target.called.wait()
    assert rig.saves.updates[0].position == "4"
    assert rig.target.delivered()[0] == 4


async def test_source_trouble_is_reported_and_overcome() -> None:
    """An unavailable source is waited for; a refusal shows its result and is asked again."""
    rig = Rig(3)
    rig.source.errors += [SourceUnavailableError("broker away"), SourceRefusedError("no such topic", result="R")]
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.report.state is ShardState.FAILED)
        assert rig.saves.progress.report.last_error == "no such topic"
        assert rig.saves.progress.report.last_result == "R"
        await rig.until(lambda: rig.saved(3))
        assert rig.saves.progress.report.last_error is None


async def test_a_source_in_trouble_does_not_hold_up_a_drain() -> None:
    """Its error comes without the event loop having a turn: asked again and again, it would hang the whole node."""
    rig = Rig(3)
    async with rig.running() as (pump, done):
        await rig.until(lambda: rig.saved(3))
        errors = rig.source.readers[0].errors
        errors.extend(SourceUnavailableError("brokers away") for _ in range(1000))
        rig.source.readers[0].arrived.set()
        await asyncio.sleep(0.1)
        pump.drain()
        assert not await done
        assert len(errors) == 999


async def test_the_end_of_a_closed_shard_ends_the_pump_after_its_last_batch() -> None:
    """A shard read out delivers what waits, without its window, and is drained."""
    rig = Rig(4, window_s=300)
    async with rig.running() as (_, done):
        await rig.until(lambda: len(rig.source.readers) == 1)
        rig.source.readers[0].at_end = True
        rig.source.readers[0].arrived.set()
        await done
    assert rig.target.delivered() == [0, 1, 2, 3]
    assert rig.saves.progress.report.state is ShardState.DRAINED
    assert rig.saved(4)


async def test_a_shard_that_begins_anew_is_rewound_before_anything_of_it_is_delivered() -> None:
    """A recreated topic takes the checkpoint back to its beginning, with the books in order, and ends the pump."""
    rig = Rig(6)
    rig.target.seconds = 0.5
    async with rig.running() as (_, done):
        await rig.until(lambda: rig.saves.progress.position == "3")
        rig.source.readers[0].errors.append(SourceRestartedError("recreated", position=Position("0")))
        rig.source.readers[0].arrived.set()
        assert await done is False
    assert rig.saves.updates[-1].rewind
    assert rig.saves.progress.position == "0"
    assert rig.saves.progress.ledger.balanced
    assert rig.saves.progress.ledger.in_flight == 0
    assert rig.source.readers[0].mirrored[-1] == "0"


async def test_lanes_keep_the_order_of_each_key_and_a_failing_one_stalls_only_itself() -> None:
    """With a parallelization factor other keys overtake; a restart does not deliver them again."""
    keys = [b"k%d" % n for n in range(50)]
    by_lane = dict(zip(lane_numbers(keys, 5), keys, strict=True))
    raws = [Raw(n, key=by_lane[n % 5]) for n in range(100)]
    rig = Rig(raws=raws, lanes=5)
    rig.target.answer = lambda p, _: FunctionFailed("Boom") if 7 in p else Delivered()
    async with rig.running():
        await rig.until(lambda: len({p for c in rig.target.calls for p in c}) >= 80)
        await asyncio.sleep(1)
    first = [p for call in rig.target.calls if 7 not in call for p in call]
    assert rig.saves.progress.ledger.balanced
    rig.target.calls.clear()
    rig.target.answer = lambda _p, _n: Delivered()
    async with rig.running():
        await rig.until(lambda: rig.saved(100))
    second = rig.target.delivered()
    assert sorted(first + second) == list(range(100)), "delivered twice, or lost"
    for key in {raw.key for raw in raws}:
        of_key = [p for p in first + second if raws[p].key == key]
        assert of_key == sorted(of_key)
    assert rig.saves.progress.ledger.delivered == 100


async def test_kafka_partial_failures_hold_the_checkpoint_at_the_lowest_unfinished_record() -> None:
    """Records reported as failed are retried alone while later ones are known finished."""
    rig = Rig(3, policy=RetryPolicy(partial_responses=True, in_order=False))
    rig.target.answer = lambda p, _: (
        Delivered(b'{"batchItemFailures":[{"itemIdentifier":1}]}') if len(p) == 3 else Delivered(b"{}")
    )
    async with rig.running():
        await rig.until(lambda: len(rig.target.calls) >= 1)
        await asyncio.sleep(0.005)
        assert rig.saves.progress.position == "1"
        await rig.until(lambda: rig.saved(3))
    assert rig.target.calls == [[0, 1, 2], [1]]


async def test_a_target_can_answer_partly_failed_only_through_the_mapping() -> None:
    """Without ReportBatchItemFailures the body is ignored completely."""
    rig = Rig(3)
    rig.target.answer = lambda _p, _n: Delivered(b'{"batchItemFailures":[{"itemIdentifier":1}]}')
    async with rig.running():
        await rig.until(lambda: rig.saved(3))
    assert rig.target.calls == [[0, 1, 2]]


async def test_memory_is_bounded_while_the_target_hangs() -> None:
    """A pump takes no more from its source than the next batches need."""
    rig = Rig(1000, batch_size=10)
    rig.target.seconds = 1e6
    async with rig.running():
        await asyncio.sleep(100)
        account = rig.counters.probes[SHARD]().ledger
    assert account.polled == account.in_flight <= 40


@pytest.mark.parametrize("lanes", [1, 3])
async def test_what_is_delivered_at_once_is_never_taken_apart(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """Records go from the reader to the function in the pieces that batches are made of, however they are read."""
    monkeypatch.setattr(Records, "fragments", None)
    raws = [Raw(position, key=b"%d" % (position % 5)) for position in range(100)]
    rig = Rig(batch_size=7, lanes=lanes, raws=raws[:1])
    async with rig.running():
        for part in (raws[1:40], raws[40:45], raws[45:]):
            await asyncio.sleep(0.1)
            rig.raws += part
            rig.source.readers[-1].arrived.set()
        await rig.until(lambda: rig.saved(100))
    assert sorted(rig.target.delivered()) == list(range(100))


@pytest.mark.parametrize(("filtered", "most"), [(None, 6), (Odd(), 1000)])
async def test_a_filter_judges_many_records_at_once(filtered: Odd | None, most: int) -> None:
    """Without one no more is read than makes the next batch but one whole."""
    rig = Rig(20, batch_size=3, filtered=filtered)
    async with rig.running():
        await rig.until(lambda: rig.saved(20))
    assert rig.source.readers[-1].most_wanted == most


async def test_a_record_lost_inside_the_pump_makes_the_ledger_scream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is held against what the lanes really hold at every checkpoint."""
    rig = Rig(9)
    real = FakeEnvelope.encode

    def lossy(self: FakeEnvelope, shard: ShardId, raws: Sequence[Raw], places: Places) -> Records:
        kept = max(1, len(raws) - 1)
        return real(self, shard, raws[:kept], places[:kept])

    monkeypatch.setattr(FakeEnvelope, "encode", lossy)
    with capture_logs() as logs:
        async with rig.running():
            await rig.until(lambda: bool(rig.saves.updates))
    assert any(entry["event"] == "ledger.imbalance" and entry["log_level"] == "error" for entry in logs)
    assert not rig.saves.progress.ledger.balanced


async def test_cancelling_at_any_moment_leaves_a_state_to_go_on_from() -> None:
    """Cancelled after each of many short delays, the shard still delivers everything, in order, at least once.

    Short lives in a row make records suspects that have to wait: some lives must be longer than that.
    """
    lives = Random(3)
    rig = Rig(60)
    rig.target.seconds = 0.013
    rig.saves.slow_s = 0.007
    rig.target.answer = lambda p, n: PartlyFailed(frozenset({p[-1]})) if n == 1 and p[0] % 4 == 0 else Delivered()
    for _ in range(400):
        async with rig.running():
            await asyncio.sleep(lives.choice([0.02, 0.05, 0.1, 3.0]) * lives.random())
        if rig.saved(60):
            break
    assert rig.saved(60)
    assert set(rig.target.delivered()) == set(range(60))
    assert rig.saves.progress.ledger.delivered == 60
    assert rig.saves.progress.ledger.balanced
