"""What goes wrong, and when: a list of faults that follows from a seed. Pure.

    plan(seed=7, seconds=300)

Every kind comes once before any comes twice. Most faults have the fleet to themselves, so that what they cost can be
told apart; now and then one begins while another is under way, but never beside a rolling restart, of which nothing
at all may be noticed, nor beside the first kill, so that every run measures a take-over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

NODES = 4
TTL_S = 3.0

_QUIET_S = 1.0  # before the first fault, so that there is something to disturb
_BESIDE = 0.25  # share of faults that begin while the one before is under way
_BESIDE_AFTER_S = 0.7


class Kind(StrEnum):
    """A kind of fault."""

    KILL = "kill -9 of a node"
    PAUSE = "node paused for longer than its lease"
    ROLL = "rolling restart"
    REDIS_KILL = "Redis killed"
    REDIS_FREEZE = "Redis frozen"
    KAFKA_KILL = "Kafka broker killed"
    RESHARD = "Kinesis split and merge"
    REFUSALS = "function answers 429 and 500"


_TAKES_S = {
    Kind.KILL: 5.5,
    Kind.PAUSE: 7.0,
    Kind.ROLL: 13.0,
    Kind.REDIS_KILL: 4.5,
    Kind.REDIS_FREEZE: 7.0,
    Kind.KAFKA_KILL: 9.0,
    Kind.RESHARD: 3.0,
    Kind.REFUSALS: 5.0,
}
"""How long a fault and the recovery from it take on a quiet machine, roughly: the time the plan sets aside."""

_LASTS_S = {
    Kind.KILL: (0.0, 3.0),  # until the node is started again
    Kind.PAUSE: (TTL_S + 0.5, TTL_S + 2.0),
    Kind.REDIS_KILL: (0.1, TTL_S),  # until it is started again
    Kind.REDIS_FREEZE: (TTL_S + 0.5, TTL_S + 2.0),
    Kind.KAFKA_KILL: (0.1, 2.0),
    Kind.REFUSALS: (2.0, 4.0),
}
_OF_REDIS = {Kind.REDIS_KILL, Kind.REDIS_FREEZE}
_KILLED_MORE_OFTEN = 3  # weight of a kill among the further faults: take-over times want many


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `at_s` counts from the beginning of the load; `node` is the place of the node it hits, if one."""

    kind: Kind
    at_s: float
    lasts_s: float = 0.0
    node: int | None = None
    beside: bool = False  # begins while the fault before it is under way


def plan(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a run of that many seconds, by time. Too short a run for all kinds has some of them."""
    random = Random(seed)
    kinds = list(Kind)
    random.shuffle(kinds)
    faults: list[Fault] = []
    free_at_s = _QUIET_S
    while True:
        kind = kinds.pop() if kinds else _any_kind(random)
        beside = _may_be_beside(faults, kind) and random.random() < _BESIDE
        at_s = faults[-1].at_s + _BESIDE_AFTER_S if beside else free_at_s
        free_at_s = max(free_at_s, at_s + _TAKES_S[kind])
        if free_at_s > seconds:
            return faults
        lasts_s = random.uniform(*_LASTS_S[kind]) if kind in _LASTS_S else 0.0
        node = random.randrange(NODES) if kind in (Kind.KILL, Kind.PAUSE) else None
        faults.append(Fault(kind, round(at_s, 2), round(lasts_s, 2), node, beside))


def _any_kind(random: Random) -> Kind:
    weights = [_KILLED_MORE_OFTEN if kind is Kind.KILL else 1 for kind in Kind]
    return random.choices(list(Kind), weights)[0]


def _may_be_beside(faults: list[Fault], kind: Kind) -> bool:
    """Whether a fault may begin while the last one is under way: two at once are enough, and not of one server."""
    if not faults or faults[-1].beside:
        return False
    kinds = {faults[-1].kind, kind}
    if Kind.KILL in kinds and sum(one is Kind.KILL for one in (*(fault.kind for fault in faults), kind)) == 1:
        return False
    return len(kinds) == 2 and Kind.ROLL not in kinds and kinds != _OF_REDIS
