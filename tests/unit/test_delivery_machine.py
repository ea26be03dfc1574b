"""A pump against a small model of the rules: Hypothesis makes up what is produced, answered, killed and drained.

The model knows what was finished and which budget every record has used up; it does not know how. After each step it
is held against the calls that were made, what was given up, the checkpoint and the account.

`ESMD_TEST_EXAMPLES=3000` looks longer than an ordinary run's few seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import looptime
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from model.outcome import Delivered, FunctionFailed, NotReached, Throttled
from pollers.lane import lane_numbers
from pollers.retrying import RetryPolicy
from pollers.shard_state import StoredState
from tests.support.pump_fakes import Raw
from tests.unit.test_handing_over import DestinationRig

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from model.invocation import Invocation
    from model.outcome import Outcome
    from pollers.pump import Pump

_STEP_S = 0.02  # of virtual time: enough for a save, which waits for others, and for a further call to be made
_BACKOFF_S = 61.0
_OLD_MS = 1000  # an arrival that every age limit has passed
_KEYS = [b"%d" % n for n in range(5)]
_WHICH = st.lists(st.integers(0, 2), min_size=1, max_size=4)  # of the calls that wait
_NAMED = st.sets(st.sampled_from([1, 2, 0, 3, 4]), min_size=1, max_size=2)  # records of a call


class Call:
    """An invocation that waits for its answer."""

    def __init__(self, positions: list[int]) -> None:
        self.positions = positions
        self.answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class Function:
    """A target whose answers the machine gives."""

    def __init__(self, machine: DeliveryMachine) -> None:
        self._machine = machine
        self.pending: list[Call] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Wait for the answer."""
        call = Call(json.loads(invocation.event))
        self._machine.judge(call.positions)
        self.pending.append(call)
        try:
            return await call.answered
        finally:
            if call in self.pending:
                self.pending.remove(call)


class DeliveryMachine(RuleBasedStateMachine):
    """One shard, its holders one after the other, and the model."""

    @initialize(
        batch_size=st.sampled_from([3, 5, 2, 1]),
        lanes=st.sampled_from([1, 1, 3]),
        retries=st.sampled_from([None, 0, 1, 2]),
        age_s=st.sampled_from([None, 3600]),
        bisect=st.booleans(),
        partial=st.sampled_from([False, True, True]),
        in_order=st.booleans(),
    )
    def begin(self, *, batch_size: int, lanes: int, in_order: bool, partial: bool, bisect: bool, **limits: Any) -> None:
        """Choose a mapping, and let its first holder live."""
        self.policy = RetryPolicy(limits["retries"], limits["age_s"], bisect, partial, in_order)
        self.batch_size = batch_size
        self.lanes = lanes
        self.loop = looptime.new_event_loop(start=0)
        self.rig = DestinationRig(0, policy=self.policy, batch_size=batch_size, lanes=lanes)
        self.function = Function(self)
        self.rig.target = self.function  # type: ignore[assignment]  # in place of the fake that answers by itself
        self.taken: set[int] = set()  # by the function
        self.used: Counter[int] = Counter()  # function errors since the last progress, by position
        self.lost: Counter[int] = Counter()  # invocations that a holder did not survive
        self.faults: list[str] = []
        self.pump: Pump | None = None
        self._start()

    # The model

    @property
    def raws(self) -> list[Raw]:
        """What was produced."""
        return self.rig.raws

    @property
    def given_up(self) -> set[int]:
        """What the destination has."""
        return {position for positions in self.rig.destination.positions for position in positions}

    @property
    def finished(self) -> set[int]:
        """What nobody needs to see any more."""
        return self.taken | self.given_up

    def sequence(self, position: int) -> int:
        """Return which ordered sequence a record belongs to."""
        key = self.raws[position].key
        return lane_numbers([position if key is None else key], self.lanes)[0]

    def judge(self, call: list[int]) -> None:
        """Hold a call that is being made against the model."""
        finished, retries = self.finished, self.policy.maximum_retry_attempts
        mine = {self.sequence(position) for position in call}
        earlier = {n for n in range(call[-1]) if self.sequence(n) in mine} - finished - set(call)
        busy = [
            other.positions for other in self.function.pending if mine & {self.sequence(n) for n in other.positions}
        ]
        for broken, why in [
            (call != sorted(call), "out of order within the call"),
            (len(call) > self.batch_size, "more than BatchSize"),
            (len(mine) > 1, "two sequences in a call"),
            (bool(earlier), f"{earlier} are unfinished and come first"),
            (bool(busy), f"while {busy} run"),
            (
                retries is not None and any(self.used[n] > retries for n in call),
                f"the budget is used up: {[self.used[n] for n in call]}",
            ),
            (
                self.policy.maximum_record_age_s is not None and self.raws[call[0]].arrival_ms == _OLD_MS,
                "the first record is expired",
            ),
        ]:
            if broken:
                self.faults.append(f"{call}: {why}")

    # Holders

    def _start(self) -> None:
        self.life = self.loop.create_task(self._live())
        self._pass(_STEP_S)

    async def _live(self) -> None:
        async with self.rig.running() as (pump, outcome):
            self.pump = pump
            await outcome

    def _pass(self, seconds: float) -> None:
        """Let time pass; a holder that has drained is followed by another one."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        if self.life.done():
            self.life.result()
            self._start()

    # What happens

    @rule(count=st.sampled_from([9, 4, 1]), old=st.sampled_from([False, False, True]))
    def produce(self, *, count: int, old: bool) -> None:
        """Append records, expired ones where there is an age limit."""
        arrival_ms = _OLD_MS if old else int(time.time() * 1000)
        for _ in range(count):
            position = len(self.raws)
            self.raws.append(Raw(position, _KEYS[position % 5] if self.lanes > 1 else None, arrival_ms))
        for reader in self.rig.source.readers:
            reader.arrived.set()
        self._pass(_STEP_S)

    @rule(whiches=_WHICH)
    def take(self, *, whiches: list[int]) -> None:
        """Answer some calls without an error."""
        for which in whiches:
            self._answer(which, "take")

    @rule(whiches=_WHICH, says=st.sampled_from(["fail", "spoil"]))
    def fail(self, *, whiches: list[int], says: str) -> None:
        """Answer some calls with an error, or with a response that spoils the batch where responses are read."""
        for which in whiches:
            self._answer(which, says)

    @rule(whiches=_WHICH, says=st.sampled_from(["throttle", "throttle for 7 s", "refuse"]))
    def refuse(self, *, whiches: list[int], says: str) -> None:
        """Do not take some calls: this uses up nothing."""
        for which in whiches:
            self._answer(which, says)

    @rule(reports=st.lists(st.tuples(st.integers(0, 2), _NAMED), min_size=1, max_size=4))
    def report(self, *, reports: list[tuple[int, set[int]]]) -> None:
        """Name some records of some calls as failed, where responses are read."""
        for which, named in reports:
            self._answer(which, "report", named)

    def _answer(self, which: int, says: str, named: AbstractSet[int] = frozenset()) -> None:
        """Answer a call; see that there is one: after the backoff of one that failed, or of new records."""
        if len(self.finished) == len(self.raws):
            self.produce(count=4, old=False)
        if not self.function.pending:
            self._pass(_BACKOFF_S)
        if not self.function.pending:
            return
        call = self.function.pending.pop(which % len(self.function.pending))
        positions = call.positions
        reads = self.policy.partial_responses
        match says:
            case "report" if reads:
                bad = sorted({positions[n % len(positions)] for n in named})
                names = [{"itemIdentifier": position} for position in bad]
                call.answered.set_result(Delivered(json.dumps({"batchItemFailures": names}).encode()))
                self._reported(positions, bad)
            case "spoil" if reads:
                call.answered.set_result(Delivered(b'{"foo":[]}'))
                self._failed(positions)
            case "fail" | "spoil":
                call.answered.set_result(FunctionFailed("Boom"))
                self._failed(positions)
            case "throttle":
                call.answered.set_result(Throttled("429"))
            case "throttle for 7 s":
                call.answered.set_result(Throttled("429", 7))
            case "refuse":
                call.answered.set_result(NotReached("403"))
            case _:
                call.answered.set_result(Delivered())
                self.taken |= set(positions)
        self._pass(_STEP_S)

    def _failed(self, call: list[int], *, named_first: bool = False) -> None:
        """Charge a failing call, unless the rules cut it instead."""
        cut = self.policy.bisect and len(call) > 1 and (self.policy.in_order or not named_first)
        if not cut:
            self.used.update(call)

    def _reported(self, call: list[int], bad: list[int]) -> None:
        left = [position for position in call if position >= bad[0]] if self.policy.in_order else bad
        if len(left) == len(call):
            self._failed(call, named_first=True)
            return
        self.taken |= set(call) - set(left)
        for position in left:
            self.used[position] = 0  # a fresh budget

    @rule(seconds=st.sampled_from([0.1, 2, 90]))
    def wait(self, *, seconds: float) -> None:
        """Let backoffs pass."""
        self._pass(seconds)

    @rule(after_s=st.sampled_from([0.0, 0.0005, 0.002]))
    def kill(self, *, after_s: float) -> None:
        """End the holder as if its process had died; what was with the function may have been taken, or not."""
        self.loop.run_until_complete(asyncio.sleep(after_s))
        for call in self.function.pending:
            self.lost.update(call.positions)
        self.life.cancel()
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.life)
        assert not self.function.pending
        self._start()

    @rule()
    def drain(self) -> None:
        """Ask the holder to stop; it goes on until what is with the function is answered."""
        assert self.pump is not None
        self.pump.drain()
        self._pass(_STEP_S)

    # What holds

    @invariant()
    def nothing_forbidden_was_called(self) -> None:
        """Order, batch size, budgets, age: `judge` saw nothing amiss."""
        assert self.faults == []

    @invariant()
    def only_what_the_rules_allow_is_given_up(self) -> None:
        """Give up for a used budget, or invocations not survived in its place, or age; without limits never."""
        retries, limited = self.policy.maximum_retry_attempts, self.policy.maximum_record_age_s is not None
        for position in self.given_up:
            expired = limited and self.raws[position].arrival_ms == _OLD_MS
            exhausted = retries is not None and self.used[position] + self.lost[position] > retries
            assert expired or exhausted, f"{position} was given up"

    @invariant()
    def the_checkpoint_passes_only_what_is_finished(self) -> None:
        """Neither it nor what is stored as finished beyond it."""
        stored = self.rig.saves.progress
        passed = set(range(int(stored.position or 0)))
        for first, last in StoredState.decode(stored.state).ahead:
            passed |= set(range(first, last + 1))
        assert passed <= self.finished

    @invariant()
    def the_account_balances(self) -> None:
        """Balance what is stored, and what operators see now."""
        assert self.rig.saves.progress.ledger.balanced
        for view in self.rig.counters.probes.values():
            assert view().ledger.balanced

    def teardown(self) -> None:
        """Let the function recover: everything that was produced is finished then, and accounted for."""
        if not hasattr(self, "loop"):
            return
        try:
            for _ in range(2 * len(self.raws) + 20):
                if len(self.finished) == len(self.raws):
                    break
                self._answer(0, "take")
            else:
                pytest.fail(f"no end: {self.rig.saves.progress}, {self.function.pending}")
            self._pass(_BACKOFF_S)
            self.nothing_forbidden_was_called()
            assert self.rig.saved(len(self.raws)) or not self.raws
            ledger = self.rig.saves.progress.ledger
            assert (ledger.delivered + ledger.destination, ledger.in_flight) == (len(self.raws), 0)
        finally:
            self.life.cancel()
            with suppress(asyncio.CancelledError):
                self.loop.run_until_complete(self.life)
            self.loop.close()


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = settings(
    max_examples=int(os.environ.get("ESMD_TEST_EXAMPLES", "40")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
