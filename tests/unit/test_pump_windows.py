"""A pump with tumbling windows at work over fakes: states, final calls, failures, restarts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from model.errors import SourceRestartedError, SourceUnavailableError
from model.ids import Position
from model.outcome import Delivered, FunctionFailed, NotReached, Throttled
from model.progress import ShardState
from pollers.caution import CAREFUL_BATCHES
from pollers.retrying import RetryPolicy
from pollers.shard_state import StoredState
from pollers.windows import GRACE_S, MAX_STATE_BYTES
from tests.support.window_rig import ARN, Final, WindowRig, at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.outcome import Outcome
    from tests.support.pump_fakes import Raw

pytestmark = pytest.mark.looptime


def stored(rig: WindowRig) -> StoredState:
    """Return what a next holder would find besides the checkpoint."""
    return StoredState.decode(rig.saves.progress.state)


async def test_windows_end_when_a_later_record_shows_up() -> None:
    """Batches within a window pass the state on; the final call comes behind the last and has it all."""
    rig = WindowRig([at(n, n * 15) for n in range(10)], batch_size=3)
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "10")
    assert rig.function.calls == [[0, 1, 2], [3], [], [4, 5, 6], [7], [], [8, 9]]
    assert rig.function.finals == [
        Final(0, [0, 1, 2, 3], False, rig.function.batch_ids[2]),
        Final(60, [4, 5, 6, 7], False, rig.function.batch_ids[5]),
    ]
    first = rig.function.events[0]
    assert list(first) == [
        "Records", "window", "state", "shardId", "eventSourceARN", "isFinalInvokeForWindow", "isWindowTerminatedEarly",
    ]  # fmt: skip
    assert (first["shardId"], first["eventSourceARN"], first["state"]) == ("orders-0", ARN, {})
    assert len(set(rig.function.batch_ids)) == len(rig.function.batch_ids)
    assert rig.saves.progress.ledger.delivered == 10
    assert rig.saves.progress.ledger.balanced
    assert rig.counters.invoked == 10


async def test_a_window_ends_two_minutes_after_its_end_when_nothing_follows() -> None:
    """The wall clock decides; afterwards nothing is open, and the next record begins with an empty state."""
    rig = WindowRig([at(0, 1), at(1, 2)])
    async with rig.running():
        await rig.until(lambda: len(rig.function.finals) == 1)
        assert rig.function.finals_at == [pytest.approx(60 + GRACE_S, abs=0.01)]
        rig.arrive(at(2, 185))
        await rig.until(lambda: rig.saves.progress.position == "3")
    assert rig.function.calls == [[0, 1], [], [2]]
    assert rig.function.events[-1]["state"] == {}


async def test_a_window_does_not_end_while_the_reader_is_behind() -> None:
    """A late reader may still find records of the window; it ends once the shard was read beyond the grace."""
    rig = WindowRig([at(0, 1)])
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "1")
        rig.reader.behind_s = 1000.0
        await asyncio.sleep(900)
        rig.arrive(at(1, 3))
        await rig.until(lambda: rig.saves.progress.position == "2")
        assert rig.function.finals == []
        rig.reader.behind_s = 5.0
        caught_up_at = asyncio.get_running_loop().time()
        await rig.until(lambda: len(rig.function.finals) == 1)
    assert rig.function.finals_at[0] - caught_up_at <= 5.1
    assert rig.function.finals[0].seen == [0, 1]


async def test_a_window_does_not_end_while_records_are_read_ahead() -> None:
    """What the reader holds comes first."""
    rig = WindowRig([at(0, 1)])
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "1")
        rig.reader.read_ahead = 1
        await asyncio.sleep(900)
        assert rig.function.finals == []
        rig.reader.read_ahead = 0
        await rig.until(lambda: len(rig.function.finals) == 1, 6)


async def test_a_window_does_not_end_while_the_source_is_in_trouble() -> None:
    """Nobody knows what an unreachable source holds; the grace begins when it answers again."""
    rig = WindowRig([at(0, 1)])
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "1")
        rig.reader.errors.extend(SourceUnavailableError("away") for _ in range(200))
        rig.reader.arrived.set()
        await rig.until(lambda: not rig.reader.errors)
        answers_at = asyncio.get_running_loop().time()
        assert answers_at > 60 + GRACE_S
        assert rig.function.finals == []
        await rig.until(lambda: len(rig.function.finals) == 1)
    assert GRACE_S <= rig.function.finals_at[0] - answers_at <= GRACE_S + 31


async def test_a_restart_gives_the_source_time_before_a_window_ends() -> None:
    """After a long stop, what arrived meanwhile is read before the open window ends."""
    rig = WindowRig([at(0, 1)])
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "1")
    await asyncio.sleep(3600)
    async with rig.running():
        await asyncio.sleep(1)
        rig.arrive(at(1, 2))
        await rig.until(lambda: len(rig.function.finals) == 1)
    assert rig.function.finals[0].seen == [0, 1]


async def test_records_that_wait_for_their_batching_window_go_before_the_final_call() -> None:
    """A batching window longer than the tumbling one does not hold its end up, and loses nothing."""
    rig = WindowRig([at(0, 1)], window_s=300)
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "1")
        rig.raws += [at(1, 302)]
        rig.arrive()
        await rig.until(lambda: len(rig.function.finals) == 2)
    assert rig.function.calls == [[0], [], [1], []]
    assert [final.seen for final in rig.function.finals] == [[0], [1]]


async def test_filtered_records_are_in_no_window_but_let_it_end() -> None:
    """A busy shard whose records are all filtered out does not keep a window open."""

    class OnlyFirst:
        """Keep record 0."""

        def keep(self, raws: Sequence[Raw]) -> list[bool]:
            return [raw.position == 0 for raw in raws]

    rig = WindowRig([at(0, 1)], filtered=OnlyFirst())
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "1")
        rig.reader.behind_s = 0.3
        for second in range(1, 400):
            await asyncio.sleep(1)
            rig.arrive(at(second, second))
    assert rig.function.calls == [[0], []]
    assert rig.function.finals_at == [pytest.approx(60 + GRACE_S, abs=1.1)]


async def test_the_end_of_the_shard_ends_the_window_before_the_shard_counts_as_drained() -> None:
    """Children start after the final call, also when it fails at first."""
    rig = WindowRig([at(n, n) for n in range(4)])

    def fails_twice(event: dict[str, Any], attempt: int) -> Outcome | None:
        return FunctionFailed("Boom") if event["isFinalInvokeForWindow"] and attempt < 3 else None

    rig.function.script = fails_twice
    async with rig.running() as (_, outcome):
        await rig.until(lambda: rig.saves.progress.position == "4")
        rig.close_shard()
        assert await outcome
    assert rig.function.calls == [[0, 1, 2], [3], [], [], []]
    assert len(set(rig.function.batch_ids[2:])) == 1
    assert [final.seen for final in rig.function.finals] == [[0, 1, 2, 3]]
    assert rig.saves.progress.report.state is ShardState.DRAINED
    window = stored(rig).window
    assert window is not None
    assert window.end_s is None


async def test_a_failing_final_call_blocks_the_shard() -> None:
    """The next window waits; throttles and unreachable functions are no failures; retries go on without limit."""
    rig = WindowRig([at(0, 1), at(1, 61)])
    answers: list[Outcome] = [Throttled("busy"), NotReached("away"), *[FunctionFailed("Boom")] * 20]

    def script(event: dict[str, Any], attempt: int) -> Outcome | None:
        return answers[attempt - 1] if event["isFinalInvokeForWindow"] and attempt <= len(answers) else None

    rig.function.script = script
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "2")
    assert rig.function.calls[:25] == [[0]] + [[]] * 23 + [[1]]
    assert all(event["state"] == {"seen": [0]} for event in rig.function.events[1:24])
    assert rig.function.events[24]["state"] == {}


async def test_a_final_call_is_given_up_by_the_mappings_rules() -> None:
    """MaximumRetryAttempts bounds it, also over a restart; the state is dropped and the shard goes on."""
    rig = WindowRig([at(0, 1), at(1, 61)], policy=RetryPolicy(maximum_retry_attempts=3))
    rig.function.script = lambda event, _: FunctionFailed("Boom") if event["isFinalInvokeForWindow"] else None
    with capture_logs() as logs:
        async with rig.running():
            await rig.until(lambda: [attempts.failures for attempts in stored(rig).attempts.values()] == [2])
        async with rig.running():
            await rig.until(lambda: rig.saves.progress.position == "2")
    assert rig.function.calls == [[0], [], [], [], [], [1]]
    assert [entry["condition"] for entry in logs if entry["event"] == "window.dropped"] == ["RetryAttemptsExhausted"]
    assert rig.function.events[-1]["state"] == {}
    assert stored(rig).attempts == {}
    assert rig.counters.dropped == 0
    assert rig.saves.progress.ledger.balanced


async def test_an_answer_without_state_is_a_failed_invocation() -> None:
    """It is retried under the mapping's rules with the state before, and given up records do not touch the state."""
    rig = WindowRig([at(n, n) for n in range(3)], batch_size=1, policy=RetryPolicy(maximum_retry_attempts=1))
    rig.function.script = lambda event, _: Delivered(b"{}") if event["Records"] == [1] else None
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "3")
    assert rig.function.calls == [[0], [1], [1], [2]]
    assert rig.function.events[-1]["state"] == {"seen": [0]}
    assert rig.saves.progress.ledger.dropped == 1
    assert rig.counters.failed_invoke == 2


async def test_a_bisected_batch_passes_the_state_from_half_to_half() -> None:
    """Each part begins with the state that the one before returned."""
    policy = RetryPolicy(bisect=True, maximum_retry_attempts=0)
    rig = WindowRig([at(n, n) for n in range(4)], batch_size=4, policy=policy)
    rig.function.script = lambda event, _: FunctionFailed("Boom") if 2 in event["Records"] else None
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "4")
    assert rig.function.calls == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    assert [event["state"] for event in rig.function.events] == [{}, {}] + [{"seen": [0, 1]}] * 3


async def test_the_state_of_a_partial_failure_is_that_of_what_is_done() -> None:
    """The part before the cut counts, with the returned state; without progress the former state stays."""
    policy = RetryPolicy(partial_responses=True)
    rig = WindowRig([at(n, n) for n in range(4)], batch_size=4, policy=policy)

    def fails_at_2(event: dict[str, Any], _: int) -> Outcome | None:
        if len(rig.function.events) > 3 or 2 not in event["Records"]:
            return None
        done = [n for n in event["Records"] if n < 2]
        more = {} if done else {"junk": 1}
        answer = json.loads(rig.function.took(event, done, batchItemFailures=[{"itemIdentifier": 2}]).body)
        answer["state"] |= more
        return Delivered(json.dumps(answer).encode())

    rig.function.script = fails_at_2
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "4")
        rig.close_shard()
        await rig.until(lambda: bool(rig.function.finals))
    assert rig.function.calls == [[0, 1, 2, 3], [2, 3], [2, 3], [2, 3], []]
    assert [event["state"] for event in rig.function.events[1:]] == [{"seen": [0, 1]}] * 3 + [{"seen": [0, 1, 2, 3]}]


async def test_a_large_state_ends_the_window_early() -> None:
    """Over 1 MB: the final call comes at once, even inside a bisected batch; the window goes on with an empty state."""
    rig = WindowRig([at(n, n) for n in range(6)], batch_size=4, policy=RetryPolicy(bisect=True))
    rig.function.padding = MAX_STATE_BYTES // 2
    rig.function.script = lambda event, _: FunctionFailed("Boom") if len(event["Records"]) > 2 else None
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "6")
        rig.close_shard()
        await rig.until(lambda: len(rig.function.finals) == 3)
    assert rig.function.calls == [[0, 1, 2, 3], [0, 1], [], [2, 3], [], [4, 5], []]
    finals = [(final.start_s, final.seen, final.early) for final in rig.function.finals]
    assert finals == [(0, [0, 1], True), (0, [2, 3], True), (0, [4, 5], True)]
    assert len({final.batch_id for final in rig.function.finals}) == 3


async def test_an_early_end_survives_a_restart() -> None:
    """Killed between the large answer and the final call: the next holder makes the final call before anything else."""
    rig = WindowRig([at(n, n) for n in range(2)], batch_size=1)
    rig.function.padding = MAX_STATE_BYTES
    rig.function.script = lambda event, _: Throttled("busy") if event["isFinalInvokeForWindow"] else None
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "1")
    rig.function.script = lambda _event, _attempt: None
    before = len(rig.function.events)
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "2")
    assert rig.function.calls[before : before + 2] == [[], [1]]
    assert rig.function.finals[0].early
    assert rig.function.finals[0].seen == [0]


async def test_a_drain_leaves_the_window_to_the_next_holder() -> None:
    """A hand-over is no end: the state goes on where it was, and no final call is made."""
    rig = WindowRig([at(0, 1)])
    async with rig.running() as (pump, outcome):
        await rig.until(lambda: rig.saves.progress.position == "1")
        pump.drain()
        assert not await outcome
    rig.raws.append(at(1, 2))
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "2")
    assert rig.function.calls == [[0], [1]]
    assert rig.function.events[1]["state"] == {"seen": [0]}


async def test_a_shard_that_began_anew_has_no_window() -> None:
    """What was open speaks of records that no longer exist."""
    rig = WindowRig([at(0, 1)])
    async with rig.running() as (_, outcome):
        await rig.until(lambda: rig.saves.progress.position == "1")
        rig.reader.errors.append(SourceRestartedError("recreated", position=Position("0")))
        rig.reader.arrived.set()
        assert not await outcome
    window = stored(rig).window
    assert window is not None
    assert window.end_s is None
    assert window.start_s == 0


async def test_a_crash_between_success_and_save_repeats_with_the_earlier_state() -> None:
    """The saved state never knows records that the saved checkpoint does not."""
    rig = WindowRig([at(0, 1)])
    async with rig.running():
        for number in range(CAREFUL_BATCHES):
            await rig.until(lambda: rig.saves.progress.position == str(number + 1))  # noqa: B023 - awaited at once
            rig.saves.slow_s = 0.001 if number + 1 < CAREFUL_BATCHES else 1e6
            rig.arrive(at(number + 1, number + 2))
        await rig.until(lambda: len(rig.function.calls) == CAREFUL_BATCHES + 1)
        await asyncio.sleep(1)
    rig.saves.slow_s = 0.001
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.position == "3")
    assert rig.function.calls == [[0], [1], [2], [2]]
    seen = [event["state"].get("seen", []) for event in rig.function.events]
    assert seen == [[], [0], [0, 1], [0, 1]]


@pytest.mark.looptime(False)
@settings(max_examples=60, deadline=None)
@given(
    gaps_s=st.lists(st.integers(-5, 100), min_size=1, max_size=25),
    batch_size=st.integers(1, 5),
    lives_s=st.lists(st.floats(0.0005, 3), max_size=12),
    outcomes=st.lists(st.sampled_from(["ok", "ok", "fail", "partial", "throttle", "no state"]), min_size=1, max_size=9),
    padding=st.sampled_from([0, 0, 0, MAX_STATE_BYTES // 6]),
)
def test_killed_anywhere_every_record_is_once_in_the_state_of_its_window(
    gaps_s: list[int], batch_size: int, lives_s: list[float], outcomes: list[str], padding: int
) -> None:
    """At least once for the function, exactly once for the states: they go back together with the checkpoint."""
    answers: dict[str, Outcome] = {
        "fail": FunctionFailed("Boom"),
        "throttle": Throttled("busy"),
        "no state": Delivered(b'{"State":{}}'),
    }
    arrivals = [sum(gaps_s[: n + 1]) + 10 for n in range(len(gaps_s))]
    raws = [at(n, max(0, second)) for n, second in enumerate(arrivals)]

    async def scenario() -> WindowRig:
        policy = RetryPolicy(partial_responses=True, bisect=True)
        rig = WindowRig(raws, batch_size=batch_size, policy=policy)
        rig.function.padding = padding
        rig.function.seconds = 0.01

        def script(event: dict[str, Any], _: int) -> Outcome | None:
            happens = outcomes[len(rig.function.events) % len(outcomes)] if len(rig.function.events) < 80 else "ok"
            records = event["Records"]
            if happens == "partial" and records:
                cut = len(records) // 2
                failed = [{"itemIdentifier": position} for position in records[cut:]]
                return rig.function.took(event, records[:cut], batchItemFailures=failed)
            return answers.get(happens)

        rig.function.script = script
        for life_s in lives_s:
            async with rig.running():
                await asyncio.sleep(life_s)
        async with rig.running() as (_, outcome):
            await rig.until(lambda: len(rig.source.readers) > len(lives_s))
            rig.close_shard()
            async with asyncio.timeout(100_000):
                assert await outcome
        return rig

    loop = looptime.new_event_loop(start=0)
    try:
        rig = loop.run_until_complete(scenario())
    finally:
        loop.close()
    finals = {final.batch_id: final for final in rig.function.finals}  # repeated when killed before the save
    assert [position for final in finals.values() for position in final.seen] == list(range(len(raws)))
    for final in rig.function.finals:
        assert finals[final.batch_id] == final
    regular = [final.start_s for final in finals.values() if not final.early]
    assert regular == sorted(set(regular))
    assert rig.saves.progress.ledger.balanced
    assert rig.saves.progress.ledger.delivered == len(raws)
