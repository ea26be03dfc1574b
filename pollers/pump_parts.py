"""What the pumps of one mapping share on a node."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pollers.caution import Quarantine
from pollers.tracing import NO_TRACING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from model.mapping import EventSourceMapping
    from pollers.checkpointer import Checkpointer
    from pollers.counters import Counters
    from pollers.gate import Gate
    from pollers.ports import Destination, Envelope, Filter, Source, Target
    from pollers.retrying import RetryPolicy
    from pollers.tracing import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpParts:
    """What all pumps of one mapping on one node share."""

    mapping: EventSourceMapping
    source: Source
    envelope: Envelope
    filter: Filter | None
    target: Target
    gate: Gate
    policy: RetryPolicy
    counters: Counters
    checkpointer: Checkpointer
    random: Random
    lanes: int = 1
    now_s: Callable[[], float] = time.time  # epoch time
    destination: Destination | None = None  # of records that are given up
    quarantine: Quarantine = field(default_factory=Quarantine)  # the node's
    tracing: Tracing = NO_TRACING

    @property
    def gives_up(self) -> bool:
        """Whether records may be given up for want of room: there is a destination, or retries have an end."""
        return self.destination is not None or self.policy.maximum_retry_attempts is not None

    async def close(self) -> None:
        """Close the connections: nothing of the mapping runs on this node any more."""
        self.gate.close()
        await self.source.close()
        if self.destination is not None:
            await self.destination.close()
