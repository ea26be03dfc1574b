"""One call of a function as a value: made by the pollers, read by the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from model.ids import ShardKey


class Invocation(msgspec.Struct, frozen=True):
    """One attempt at one batch, as a target sees it."""

    event: bytes
    mapping: str  # the mapping's name
    shard: ShardKey
    token: int
    batch_id: str  # the same for every attempt at the same records
    attempt: int  # 1 for the first
    traceparent: str | None = None  # W3C's, of the span that stands for this attempt; None: there is none
