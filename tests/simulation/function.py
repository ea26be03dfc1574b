"""The simulated function: quick or slow, failing, throttling, out of reach, hanging, its answers lost, called twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from model.outcome import Delivered, FunctionFailed, NotReached, Throttled
from tests.simulation.calls import Call, entries
from tests.support.virtual_loop import OUTSIDE
from tests.support.wire import NoAnswerError, RefusedByWireError, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from random import Random

    from model.invocation import Invocation
    from model.outcome import Outcome
    from tests.simulation.calls import Entry, Watch, Written
    from tests.simulation.plan import FunctionPlan


class Function:
    """The function, outside every node: a call that arrived is carried out, whether or not its caller lives on."""

    def __init__(self, plan: FunctionPlan, random: Random, watch: Watch, *, partial: Collection[str]) -> None:
        self.plan = plan
        self.outcomes: Counter[str] = Counter()
        self.healed = False
        self._usual = plan
        self._random = random
        self._watch = watch
        self._partial = partial  # mappings to which it reports failed items
        self._poison: dict[tuple[str, int], bool] = {}
        self._loop = asyncio.get_running_loop()

    def suffer(self, **troubles: float) -> None:
        """Behave worse than usual."""
        self.plan = replace(self._usual, **troubles)  # type: ignore[arg-type]  # the probabilities

    def recover(self) -> None:
        """Behave as usual, unless healed."""
        if not self.healed:
            self.plan = self._usual

    def heal(self) -> None:
        """Fail on nothing any more, answer everything, and soon: what has piled up must not take long."""
        self.healed = True
        well = replace(self._usual, fails=0, throttles=0, unreachable=0, hangs=0, answer_lost=0, twice=0, poison=0)
        self.plan = replace(well, slow=0, quick_s=(0.005, 0.02))

    def serve(self, call: Call, found: list[Entry], answer: Callable[[Outcome], None]) -> None:
        """Take a call that arrived."""
        plan, random = self.plan, self._random
        refused = self._refused()
        if refused is not None:
            self._say(refused)
            answer(refused)
            return
        hangs, lost = random.random() < plan.hangs, random.random() < plan.answer_lost
        seconds = random.uniform(*(plan.slow_s if random.random() < plan.slow else plan.quick_s))

        def over() -> None:
            if hangs:
                self.outcomes["hangs"] += 1
                return
            outcome = self._carry_out(call, found)
            if lost:
                self.outcomes["answer lost"] += 1
            else:
                answer(outcome)

        self._loop.call_later(seconds, over, context=OUTSIDE)
        if random.random() < plan.twice:
            self.outcomes["twice"] += 1
            again_s = seconds + random.uniform(0, 1)
            self._loop.call_later(again_s, lambda: self._carry_out(call, found), context=OUTSIDE)

    def _refused(self) -> Outcome | None:
        drawn = self._random.random()
        if drawn < self.plan.throttles:
            return Throttled("by seed")
        if drawn < self.plan.throttles + self.plan.unreachable:
            return NotReached("by seed")
        return None

    def _carry_out(self, call: Call, found: list[Entry]) -> Outcome:
        """Do the work; return what the answer says."""
        failed = {one.item for one, record in zip(found, call.records, strict=True) if self._poisoned(record)}
        fails = self._random.random() < self.plan.fails
        if call.shard.mapping in self._partial and (failed or fails):
            failed = _with_followers(found, call.records, failed or {self._random.choice(found).item})
            told = [{"itemIdentifier": one.identifier} for one in found if one.item in failed]
            body = msgspec.json.encode({"batchItemFailures": told})
            taken = [record for one, record in zip(found, call.records, strict=True) if one.item not in failed]
            self._watch.carried_out(call, taken)
            return self._say(Delivered(body))
        if failed or fails:
            self._watch.carried_out(call, [])
            return self._say(FunctionFailed("poison" if failed else "by seed"))
        self._watch.carried_out(call, call.records)
        return self._say(Delivered())

    def _poisoned(self, record: Written) -> bool:
        """Tell whether it fails on a record: always, or until the world is healed."""
        poison = self._usual.poison
        if not poison or self.healed:
            return False
        name = (record.line.key, record.number)
        if name not in self._poison:
            self._poison[name] = self._random.random() < poison
        return self._poison[name]

    def _say(self, outcome: Outcome) -> Outcome:
        self.outcomes[type(outcome).__name__] += 1
        return outcome


def _with_followers(found: list[Entry], records: list[Written], failed: set[str]) -> set[str]:
    """Fail, as a good function does, what comes after a failed record of the same key."""
    broken = set()
    for one, record in zip(found, records, strict=True):
        if one.item in failed:
            broken.add(record.line)
        elif record.line in broken:
            failed.add(one.item)
    return failed


class FunctionWay(Wire):
    """One node's way to the function. `pollers.ports.Target`."""

    def __init__(self, function: Function, watch: Watch, *, caller: str, timeout_s: float) -> None:
        super().__init__(timeout_s=timeout_s)
        self._function = function
        self._watch = watch
        self._caller = caller
        self.holds: Callable[[Call], bool] = lambda _call: True

    async def invoke(self, invocation: Invocation) -> Outcome:
        """See `pollers.ports.Target`."""
        loop = asyncio.get_running_loop()
        found = entries(invocation)
        call = Call(
            caller=self._caller,
            shard=invocation.shard,
            token=invocation.token,
            records=self._watch.find(invocation, found),
            receipts=[one.receiptHandle for one in found],
            began_at=loop.time(),
            holds=lambda: self.holds(call),
        )
        self._watch.begins(call)
        outcome: Outcome
        try:
            try:
                outcome = await self.carry("invoke", lambda answer: self._function.serve(call, found, answer))
            except RefusedByWireError as exc:
                outcome = NotReached(str(exc))
            except NoAnswerError as exc:
                outcome = FunctionFailed(str(exc))
            call.outcome = outcome
        finally:
            self._watch.over(call)
        self._watch.answered(call)
        return outcome

    def close(self) -> None:
        """Nothing to close."""
