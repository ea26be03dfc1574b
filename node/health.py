"""Whether a node is ready, and if not, why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from model.ids import NodeId, ShardKey


class LeasingFacts(Protocol):
    """What readiness and metrics want to know of `leasing.service.LeasingService`. Answers at once, from memory."""

    @property
    def node(self) -> NodeId | None:
        """The present membership's id; None while this node is no member."""

    @property
    def held(self) -> Collection[ShardKey]:
        """The shards whose leases this node holds."""

    @property
    def awaited(self) -> int:
        """How many shards are assigned to this node and not held by it yet."""

    @property
    def balanced(self) -> bool:
        """Whether everything assigned to this node was held when it last looked."""

    @property
    def transitions(self) -> Mapping[str, int]:
        """How often leases were gained and lost, by reason, since the process started."""

    @property
    def last_error(self) -> str | None:
        """What keeps the heartbeat from getting through; None while it does."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer of `/readyz`: ready when there is no reason against it."""

    reasons: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the node does its part of the work."""
        return not self.reasons


def readiness(leasing: LeasingFacts, *, unread: Collection[ShardKey], draining: bool) -> Readiness:
    """Judge: a member, holding its share, with the positions of what it holds read.

    `unread`: shards whose position is not known yet. A shard of this node's share that another one still holds counts
    as missing: the hand-over is not done.
    """
    reasons: list[str] = []
    if draining:
        reasons.append("draining")
    if leasing.node is None:
        reasons.append("not a member of the fleet" + (f": {leasing.last_error}" if leasing.last_error else ""))
    elif leasing.awaited:
        reasons.append(f"{leasing.awaited} assigned shards not held yet")
    elif not leasing.balanced:
        reasons.append("this node's share of the shards is not settled yet")
    positions = sum(key in leasing.held for key in unread)
    if positions:
        reasons.append(f"{positions} shards whose position is not read yet")
    return Readiness(tuple(reasons))
