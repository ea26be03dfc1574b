"""Call the function with messages of a queue: what an invocation of a batch carries, and what is counted."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.invocation import Invocation
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from pollers.partial import read_response
from pollers.tracing import NO_TRACING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from leasing.held import HeldLease
    from model.mapping import EventSourceMapping
    from pollers.checkpointer import Checkpointer
    from pollers.counters import Counters
    from pollers.gate import Gate
    from pollers.ports import Filter, Target
    from pollers.queue_ports import Message, Queue, QueueEnvelope
    from pollers.tracing import Tracing

LONG_POLL_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueParts:
    """What all pollers of one queue mapping on one node share."""

    mapping: EventSourceMapping
    source: Queue
    fifo: bool
    envelope: QueueEnvelope
    filter: Filter | None
    target: Target
    gate: Gate
    counters: Counters
    checkpointer: Checkpointer
    random: Random
    function_timeout_s: float | None = None  # None: not known
    long_poll_s: int = LONG_POLL_S
    tracing: Tracing = NO_TRACING

    async def close(self) -> None:
        """Close the connections: nothing of the mapping runs on this node any more."""
        self.gate.close()
        await self.source.close()


async def call(parts: QueueParts, lease: HeldLease, messages: Sequence[Message], attempt: int) -> Outcome:
    """Call the function once. Raises `LeaseLostError`, before calling, unless the lease can be trusted."""
    records = [message.record for message in messages]
    event = parts.envelope.event(records)
    lease.check()
    loop = asyncio.get_running_loop()
    parts.counters.invoked += len(records)
    invocation = Invocation(
        event=event,
        mapping=parts.mapping.name,
        shard=lease.key,
        token=lease.token,
        batch_id=f"{lease.key.mapping}:{_digest(messages)}",
        attempt=attempt,
    )
    with parts.tracing.attempt(invocation, len(records)) as traced:
        began_at = loop.time()
        outcome = await parts.target.invoke(traced.invocation)
        parts.counters.durations.observe(loop.time() - began_at)
        if isinstance(outcome, Delivered) and parts.mapping.report_batch_item_failures:
            outcome = read_response(outcome, [record.item_id for record in records], parts.envelope.parse_item_id)
        traced.outcome = outcome
    match outcome:
        case PartlyFailed() | FunctionFailed():
            parts.counters.failed_invoke += len(records)
        case Throttled():
            parts.counters.throttles += 1
        case Delivered() | NotReached():
            pass
    return outcome


def _digest(messages: Sequence[Message]) -> str:
    """Name a batch by its messages, so that the same messages make the same name, whoever receives them."""
    names = "\n".join([str(message.record.item_id) for message in messages])
    return hashlib.blake2s(names.encode(), digest_size=12).hexdigest()
