"""What nodes and the store say to each other about concurrency: pools of slots, and who holds how many.

A *slot* is the right to have one invocation under way. Slots come from *pools*: one for each function with reserved
concurrency, named like it, and one that all other functions share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Sequence

Pool = NewType("Pool", str)

UNRESERVED = Pool("")
"""The pool of all functions without reserved concurrency."""

DEFAULT_ACCOUNT_CONCURRENCY = 1000
"""Invocations at one time of all functions together (spec section 6.2)."""

LEAST_UNRESERVED = 100
"""What reserving must leave for the other functions, as in AWS."""


@dataclass(frozen=True, slots=True)
class PoolWish:
    """What a holder says of one pool, and asks of it.

    `keep` of the slots that it holds it wants to go on holding, at least the `in_use` ones. `need` more are for
    invocations that wait, `extra` more would save it from asking for the next ones.
    """

    pool: Pool
    in_use: int
    keep: int
    need: int = 0
    extra: int = 0


@dataclass(frozen=True, slots=True)
class PoolGrant:
    """What a holder has of one pool from now on, and the others have. `limit` None: nothing is reserved."""

    limit: int | None
    held: int
    others: int


@dataclass(frozen=True, slots=True)
class CountReply:
    """The answers, in the order of the wishes. Of `holders` live holders this one is number `rank`, from 0 on.

    As long as it is not `calm`, after a silence, the store may not have heard of all of them.
    """

    grants: Sequence[PoolGrant]
    holders: int
    rank: int
    calm: bool = True


def share(limit: int, *, holders: int, rank: int) -> int:
    """Return the part of a limit that is one holder's where nobody can be asked. All shares together are the limit."""
    return limit // holders + (rank < limit % holders)


def unreserved(account: int, reserved: int) -> int:
    """Return the size of the pool that is shared, when so much is reserved of an account's concurrency."""
    return max(0, account - reserved)
