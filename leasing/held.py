"""A lease as its holder has it: the token, where the work starts, and whether it may still go on."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from model.errors import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasing.term import Term
    from model.ids import FencingToken, NodeId, ShardKey
    from model.lease import Lease
    from model.progress import ShardProgress


class Reason(StrEnum):
    """Why a lease came or went: the label of `esm_lease_transitions_total`."""

    ACQUIRED = "acquired"
    RELEASED = "released"  # drained and given back, to a successor or because it is no longer wanted
    GIVEN_UP = "given_up"  # the host could not go on with it
    DRAIN_TIMEOUT = "drain_timeout"  # did not become quiet in time, so it was stopped and given back
    TERM_ENDED = "term_ended"  # no heartbeat got through in time
    MEMBERSHIP_LOST = "membership_lost"  # the store had let the membership expire, or does not know it
    STORE_REPLACED = "store_replaced"  # the store was wiped, or is another one
    TAKEN = "taken"  # the store says that someone else, or nobody, holds it
    STOPPED = "stopped"  # this node was stopped at once


class HeldLease:
    """The right to work on one shard. Ask `check()` before every step that others could notice."""

    __slots__ = ("_clock", "_term", "_why", "lease", "progress")

    def __init__(self, lease: Lease, progress: ShardProgress, *, term: Term, clock: Callable[[], float]) -> None:
        self.lease = lease
        self.progress = progress  # as read in the same step as the acquisition
        self._term = term
        self._clock = clock
        self._why: Reason | None = None

    @property
    def key(self) -> ShardKey:
        """The shard."""
        return self.lease.key

    @property
    def token(self) -> FencingToken:
        """What every write on the shard's behalf carries."""
        return self.lease.token

    @property
    def node(self) -> NodeId:
        """The membership that holds it."""
        return self.lease.node

    @property
    def over(self) -> Reason | None:
        """Why it ended; None while nobody ended it. Also a lease that is not over can be past its term: `check`."""
        return self._why

    def trusted(self, now: float | None = None) -> bool:
        """Tell whether work on the shard is still allowed."""
        return self._why is None and self._term.trusted(self._clock() if now is None else now)

    def check(self, now: float | None = None) -> None:
        """Return while work on the shard is allowed. Raises `LeaseLostError` afterwards, for ever."""
        if not self.trusted(now):
            raise LeaseLostError(self.key, self._why or Reason.TERM_ENDED)

    def end(self, why: Reason) -> None:
        """Let no further step be taken under it. The first reason stands."""
        if self._why is None:
            self._why = why

    def __repr__(self) -> str:
        state = self._why or ("trusted" if self.trusted() else "past its term")
        return f"<HeldLease {self.key} token={self.token} {state}>"
