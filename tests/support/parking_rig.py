"""A pump that parks, and a function that fails on some records until it is mended."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from model.mapping import Extensions
from model.outcome import Delivered, FunctionFailed
from pollers.retrying import RetryPolicy
from tests.support.pump_fakes import FakeTarget, Raw
from tests.support.pump_rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model.outcome import Outcome

PARKING = Extensions(park_failing_keys=True)
AT_ONCE = RetryPolicy(park_after=1)
BOOM = FunctionFailed("Boom")


def keyed(count: int, keys: int = 5) -> list[Raw]:
    """Return records spread over keys in turn: record 7 of five keys has key 2."""
    return [Raw(n, b"%d" % (n % keys)) for n in range(count)]


def failing_on(*poison: int, mended: Callable[[], bool] = lambda: False) -> Callable[[list[int], int], Outcome]:
    """Answer with an error to every call that holds one of the positions, until it is mended."""
    return lambda positions, _: BOOM if set(positions) & set(poison) and not mended() else Delivered()


class Deliveries:
    """What a function took, call by call."""

    def __init__(self, target: FakeTarget, answer: Callable[[list[int], int], Outcome]) -> None:
        self.positions: list[int] = []
        self._answer = answer
        target.answer = self._note

    def _note(self, positions: list[int], attempt: int) -> Outcome:
        outcome = self._answer(positions, attempt)
        if isinstance(outcome, Delivered):
            self.positions += positions
        return outcome

    def by_key(self, keys: int = 5) -> dict[int, list[int]]:
        """Return the positions taken of each key."""
        found = defaultdict(list)
        for position in self.positions:
            found[position % keys].append(position)
        return found


def parking_rig(raws: list[Raw], poison: Iterable[int], **options: Any) -> tuple[Rig, Deliveries, dict[str, bool]]:
    """Return a pump that parks, its function, and a switch that mends the function."""
    switch = {"mended": False}
    rig = Rig(**{"raws": raws, "batch_size": 10, "policy": AT_ONCE, "extensions": PARKING, **options})
    return rig, Deliveries(rig.target, failing_on(*poison, mended=lambda: switch["mended"])), switch
