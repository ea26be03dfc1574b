"""Nodes that die while a function has their records: who is suspected, told apart, and given up."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from math import ceil, log
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.mapping import Extensions
from model.outcome import Delivered, FunctionFailed, Throttled
from model.progress import ShardState
from model.record import Batch, Records
from pollers.attempts import Attempts, Flight
from pollers.caution import CAREFUL_BATCHES, Quarantine
from pollers.deaths import inherited
from pollers.pump import Pump
from pollers.retrying import Condition, Discard, Retrying, RetryPolicy
from pollers.shard_state import StoredState
from tests.support.loops import fast_forwarded
from tests.support.pump_fakes import Raw, record
from tests.support.pump_rig import Rig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.invocation import Invocation
    from model.outcome import Outcome
    from pollers.checkpointer import Checkpointer
    from pollers.handing_over import Fate

NONE, AMONG_OTHERS, ALONE, DEADLY = Flight
PARKING = Extensions(park_failing_keys=True)


# What the next holder makes of it


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (Attempts(5, 1, 2), Attempts(5, 1, 2)),
        (Attempts(5, 0, 0, flight=AMONG_OTHERS), Attempts(5, 0, 1, deaths=1)),
        (Attempts(5, 1, 2, deaths=1, flight=AMONG_OTHERS), Attempts(5, 1, 3, deaths=1)),
        (Attempts(5, 0, 1, deaths=1, flight=ALONE), Attempts(5, 0, 2, deaths=2, flight=DEADLY)),
        (Attempts(5, 0, 2, deaths=2, flight=DEADLY), Attempts(5, 0, 2, deaths=2, flight=DEADLY)),
        (Attempts(3, 0, 1, deaths=1, flight=ALONE), Attempts(3, 1, 2, deaths=2)),
        (Attempts(3, 1, 2, 201, "7", None, 2, ALONE), Attempts(3, 2, 3, 200, None, "Unhandled", 3)),
    ],
)
def test_a_death_counts_for_what_was_with_the_function(stored: Attempts, expected: Attempts) -> None:
    """First it makes a suspect; of one that was alone, more records are told apart and a single one is charged."""
    assert inherited({3: stored}, drained=False) == {3: expected}


@pytest.mark.parametrize("flight", [AMONG_OTHERS, ALONE])
def test_a_drain_that_runs_out_of_time_is_no_death(flight: Flight) -> None:
    """Nothing is counted when the last holder was on its way out."""
    stored = {3: Attempts(5, 0, 1, deaths=1, flight=flight)}
    assert inherited(stored, drained=True) == {3: Attempts(5, 0, 1, deaths=1)}


def start(known: dict[int, Attempts], count: int = 40, policy: RetryPolicy | None = None) -> Retrying:
    """Begin with records that have a past."""
    records = Records.of([record(n) for n in range(count)])
    batch = Batch(records, 100 + records.size)
    return Retrying(policy or RetryPolicy(), batch, overhead=100, random=Random(1), known_failures=known)


def test_a_deadly_run_goes_on_in_pieces_and_only_that_run() -> None:
    """Sixteen at most; what follows in the batch stays together."""
    retrying = start({0: Attempts(29, 1, 4, deaths=2, flight=DEADLY)})
    seen = []
    while (step := retrying.next(0)) is not None:
        assert not isinstance(step, Discard)
        work = step.work
        seen.append((len(work.batch.records), work.failures, work.deaths, work.flight))
        retrying.learn(Delivered())
    assert seen == [(2, 1, 1, NONE)] * 15 + [(10, 0, 0, NONE)]


@pytest.mark.parametrize(
    ("outcome", "deaths"), [(FunctionFailed("Boom"), 0), (Throttled("busy"), 2)], ids=["answered", "throttled"]
)
def test_an_answer_ends_the_suspicion(outcome: Outcome, deaths: int) -> None:
    """The function had the records and the node lives; a throttle says nothing."""
    retrying = start({0: Attempts(39, 0, 2, deaths=2)})
    retrying.next(0)
    retrying.learn(outcome)
    assert {first: one.deaths for first, one in retrying.failures().items()} == {0: deaths}


def test_suspicion_survives_the_stored_form_and_earlier_versions_are_read() -> None:
    """What was stored before there were suspects has none."""
    attempts = {3: Attempts(5, 1, 2, deaths=2, flight=DEADLY)}
    assert StoredState.decode(StoredState(attempts).encode()).attempts == attempts
    assert StoredState.decode(b'{"attempts":{"3":[5,1,2,200,null,"Unhandled"]}}').attempts == {3: Attempts(5, 1, 2)}


# A shard whose holders die


class MortalRig(Rig):
    """A pump whose node dies as soon as its function is given certain records."""

    def __init__(self, count: int = 10, *, deadly: Sequence[int] = (), quarantine: Quarantine, **options: Any) -> None:
        super().__init__(count, **options)
        self.deadly = set(deadly)
        self.quarantine = quarantine
        self.died = asyncio.Event()
        self.deaths = 0
        self.waits_s: list[float] = []  # from each start to the death
        self.target.invoke = self._invoke  # type: ignore[method-assign]  # the fake, with death in it
        self._invoke_alive = type(self.target).invoke

    def pump(self, checkpointer: Checkpointer) -> Pump:
        """Make the pump, with what all suspects of the node share."""
        return Pump(replace(super().pump(checkpointer)._parts, quarantine=self.quarantine), self.lease)  # type: ignore[arg-type]

    async def _invoke(self, invocation: Invocation) -> Outcome:
        positions = {int(text) for text in invocation.event.strip(b"[]").split(b",")}
        if positions & self.deadly:
            self.target.calls.append(sorted(positions))
            self.died.set()
            await asyncio.Event().wait()
        return await self._invoke_alive(self.target, invocation)

    def over(self, end: int) -> bool:
        """Whether everything is saved, and nothing parked."""
        return self.saved(end) and not self.saves.progress.ledger.parked

    async def live(self, end: int) -> bool:
        """Work until everything is over (True), or the node dies."""
        self.died.clear()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        async with self.running():
            while not (self.died.is_set() or self.over(end)):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self.died.wait()
        if self.died.is_set():
            self.deaths += 1
            self.waits_s.append(loop.time() - began_at)
        return not self.died.is_set()

    async def live_on(self, end: int, *, most: int = 100) -> None:
        """Start again after each death."""
        for _ in range(most):
            if await self.live(end):
                return
        raise AssertionError(f"{most} deaths")

    @property
    def survived(self) -> list[int]:
        """Every position of every call that was answered, in order."""
        return [position for call in self.target.calls if not set(call) & self.deadly for position in call]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data(), st.sampled_from([1, 2, 7, 100]), st.integers(0, 3), st.sampled_from([1, 3]))
@pytest.mark.looptime(False)
def test_a_record_that_kills_its_node_is_isolated_and_given_up(
    count: int, data: st.DataObject, batch_size: int, retries: int, lanes: int
) -> None:
    """After few deaths, whatever the batches: the others are delivered in order, none of them is given up."""
    poison = data.draw(st.integers(0, count - 1))
    raws = [Raw(n, key=b"%d" % (n % 5)) for n in range(count)]

    async def play() -> MortalRig:
        policy = RetryPolicy(maximum_retry_attempts=retries)
        rig = MortalRig(
            raws=raws, deadly=[poison], batch_size=batch_size, lanes=lanes, policy=policy, quarantine=Quarantine()
        )
        await rig.live_on(count)
        return rig

    rig = fast_forwarded(play())
    ledger = rig.saves.progress.ledger
    assert (ledger.delivered, ledger.dropped, ledger.balanced) == (count - 1, 1, True)
    assert set(rig.survived) == set(range(count)) - {poison}
    for key in range(5):
        first = list(dict.fromkeys(position for position in rig.survived if position % 5 == key))
        assert first == sorted(first)
    isolating = ceil(log(batch_size, 16)) if batch_size > 1 else 0
    ahead = 2  # batches that may lie between the checkpoint and the one that is met without care
    assert rig.deaths <= 3 + isolating + retries + ahead


@pytest.mark.looptime
async def test_without_a_retry_limit_it_is_never_given_up_but_kills_less_and_less_often() -> None:
    """The records before it are delivered; the next holder waits up to a minute, and the report says for what."""
    rig = MortalRig(6, deadly=[4], batch_size=1, quarantine=Quarantine())
    for _ in range(14):
        assert not await rig.live(6)
    assert rig.saves.progress.position == "4"
    assert rig.saves.progress.ledger.dropped == 0
    assert rig.waits_s[-1] == pytest.approx(60, abs=1)
    assert all(before <= after + 0.1 for before, after in zip(rig.waits_s[3:], rig.waits_s[4:], strict=False))
    errors = [update.report.last_error for update in rig.saves.updates]
    assert errors[-1] == "nodes ended while the function had the records from 4 to 4"
    rig.deadly.clear()
    assert await rig.live(6)
    assert rig.saves.progress.ledger.delivered == 6
    assert rig.saves.updates[-1].report.last_error is None
    assert rig.saves.progress.state == b""


@pytest.mark.looptime
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("at_first", [True, False], ids=["deadly from the first", "when it is parked"])
async def test_a_parked_record_that_kills_its_node_is_given_up_too(retries: int, *, at_first: bool) -> None:
    """What is parked has no count of failures; what waits behind it for its key is delivered in its turn."""
    policy = RetryPolicy(maximum_retry_attempts=retries, park_after=retries + 1)
    raws = [Raw(n, key=b"%d" % (n % 3)) for n in range(12)]
    rig = MortalRig(raws=raws, batch_size=3, policy=policy, extensions=PARKING, quarantine=Quarantine())
    if at_first:
        rig.deadly.add(4)
    else:
        rig.target.answer = lambda positions, _: FunctionFailed("Boom") if 4 in positions else Delivered()
        async with rig.running():
            await rig.until(lambda: rig.saved(12) and rig.saves.progress.ledger.parked == 3)
        rig.target.calls.clear()
        rig.deadly.add(4)
    await rig.live_on(12)
    ledger = rig.saves.progress.ledger
    assert (ledger.delivered, ledger.dropped, ledger.parked) == (11, 1, 0)
    assert [position for position in rig.survived if position % 3 == 1] == ([1, 7, 10] if at_first else [7, 10])
    assert rig.deaths <= 6 + retries


@pytest.mark.looptime
async def test_what_is_given_up_says_how_often_the_function_had_it() -> None:
    """The first death leaves no trace; all later ones are invocations of the document."""
    seen: list[Discard] = []

    def given_up(pump: Pump, discard: Discard, fate: Fate) -> None:
        seen.append(discard)
        real(pump, discard, fate)

    rig = MortalRig(1, deadly=[0], policy=RetryPolicy(maximum_retry_attempts=1), quarantine=Quarantine())
    real = Pump.given_up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pump, "given_up", given_up)
        await rig.live_on(1)
    [discard] = seen
    assert discard.condition is Condition.RETRY_ATTEMPTS_EXHAUSTED
    assert discard.work.invocations == rig.deaths == 3
    assert isinstance(discard.work.last, FunctionFailed)


@pytest.mark.looptime
async def test_a_node_that_drains_kills_nobody() -> None:
    """A drain that is cut off in the middle of an invocation leaves no suspects."""
    rig = MortalRig(3, quarantine=Quarantine())
    rig.target.seconds = 1e6
    async with rig.running() as (pump, _):
        await rig.target.called.wait()
        assert StoredState.decode(rig.saves.progress.state).attempts[0].flight is AMONG_OTHERS
        pump.drain()
        await rig.until(lambda: rig.saves.progress.report.state is ShardState.DRAINING)
    rig.target.seconds = 0.0
    async with rig.running():
        await rig.until(lambda: rig.saved(3))
    assert all(
        StoredState.decode(update.state).attempts.get(0, Attempts(2, 0, 0)).deaths == 0 for update in rig.saves.updates
    )


@pytest.mark.looptime
async def test_beyond_the_first_batches_nothing_is_noted_and_nothing_waited_for() -> None:
    """Care costs a save for each of the first batches after a take-over, and no more."""
    rig = Rig(30, batch_size=3)
    rig.target.seconds = 0.5
    async with rig.running():
        await rig.until(lambda: rig.saved(30))
    noted = [state for update in rig.saves.updates if (state := StoredState.decode(update.state)).attempts]
    assert [list(state.attempts) for state in noted] == [[0], [3]]
    assert all(attempts.flight is AMONG_OTHERS for state in noted for attempts in state.attempts.values())
    assert CAREFUL_BATCHES == 2


@pytest.mark.looptime
async def test_a_shard_beside_the_deadly_one_loses_nothing() -> None:
    """Records of others that are with the function at each death come to be suspects, and are cleared alone."""
    quarantine = Quarantine()
    once = RetryPolicy(maximum_retry_attempts=0)
    killer = MortalRig(1, deadly=[0], policy=once, quarantine=quarantine)
    others = [MortalRig(4, batch_size=1, policy=once, quarantine=quarantine) for _ in range(5)]
    for other in others:
        other.target.seconds = 0.7
    for _ in range(20):
        killer.died.clear()
        async with contextlib.AsyncExitStack() as node:
            for rig in (killer, *others):
                await node.enter_async_context(rig.running())
            await killer.until(
                lambda: killer.died.is_set() or all(rig.saved(1 if rig is killer else 4) for rig in (killer, *others))
            )
        if not killer.died.is_set():
            break
    assert killer.saves.progress.ledger.dropped == 1
    assert [rig.saves.progress.ledger.delivered for rig in others] == [4] * 5
    assert [rig.saves.progress.ledger.dropped for rig in others] == [0] * 5
