"""Receive messages of a queue: how many, when, and what happens to each on its way in.

Which of them form a batch is `pollers.queue_groups`' business; how many may come, the pump's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from invocation.settings import LONGEST_TIMEOUT_S
from model.errors import SourceRefusedError, SourceUnavailableError
from pollers.queue_ports import Message
from pollers.visibility import MAX_HIDDEN_S, hidden_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pollers.queue_calls import QueueParts
    from pollers.queue_groups import Groups
    from pollers.queue_ports import QueueFacts, Received
    from pollers.queue_settling import Settling
    from pollers.queue_standing import QueueStanding
    from pollers.visibility import Visibility

NO_VISIBILITY_S = 30
"""For a queue whose visibility timeout is 0: nothing could be processed in peace."""

_MOST = 10  # messages of one receive
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
_REFUSED_DELAY_S = 30.0
_MAX_HELD_BYTES = 64 * 1024 * 1024
_WINDOW_MARGIN_S = 30


class Intake:
    """The receives of one poller. What comes is put into `groups` and `visibility`, and `changed` is called."""

    def __init__(
        self,
        parts: QueueParts,
        *,
        standing: QueueStanding,
        groups: Groups,
        visibility: Visibility,
        settling: Settling,
        changed: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._standing = standing
        self._groups = groups
        self._visibility = visibility
        self._settling = settling
        self._changed = changed
        self._visibility_s: int | None = None  # asked for with a receive, where it is not the queue's own
        self._received = 0  # numbers messages in the order of receipt
        self.held_bytes = 0  # of messages received and still held; the pump takes off what it lets go
        self.under_way = 0
        self.reserved = 0  # messages that the receives under way may bring
        self.most = 1  # under way at once; grows while receives come back full, back to one when one comes back empty
        self.not_before = 0.0
        self.delay_s = _FIRST_DELAY_S

    def to_receive(self, free: int, now: float) -> int:
        """How many messages the next receive may bring: only what free slots can take."""
        if self.not_before > now or self.under_way >= self.most or self.held_bytes >= _MAX_HELD_BYTES:
            return 0
        batch_size = self._parts.mapping.batch_size
        room = free * batch_size - self._groups.ready - self.reserved
        # A FIFO receive brings no more of one group than one batch takes, so none waits behind its own group.
        return max(0, min(room, _MOST, batch_size if self._parts.fifo else _MOST))

    def begin(self, most: int) -> None:
        """Count a receive as under way, before its task runs."""
        self.under_way += 1
        self.reserved += most

    async def receive(self, most: int, wait_s: int, *, share: int) -> None:
        """Make one receive; `share` bounds how many may be under way from now on."""
        loop = asyncio.get_running_loop()
        try:
            received = await self._parts.source.receive(most, wait_s=wait_s, visibility_s=self._visibility_s)
        except (SourceUnavailableError, SourceRefusedError) as exc:
            pause_s, self.delay_s = self.trouble(exc, self.delay_s)
            self.not_before = loop.time() + pause_s
            self.most = 1
        else:
            self.delay_s = _FIRST_DELAY_S
            if not received:
                self.most = 1
            elif len(received) == most:
                self.most = min(2 * self.most, share + 1)
            self._standing.source_answers()
            self._take(received, loop.time())
        finally:
            self.under_way -= 1
            self.reserved -= most
            self._changed()

    def _take(self, received: Sequence[Received], now: float) -> None:
        """Account for, filter, encode and hold messages. No await: nothing can be lost in between."""
        if not received:
            return
        parts, standing = self._parts, self._standing
        first = self._received
        self._received += len(received)
        parts.counters.polled += len(received)
        records = parts.envelope.encode([one.raw for one in received], range(first, self._received))
        until_at = hidden_until(now, self._visibility_s or self._visibility.timeout_s)
        messages = [
            Message(record, one.receipt, one.group, one.receives, until_at, now + MAX_HIDDEN_S)
            for record, one in zip(records, received, strict=True)
        ]
        size = sum([message.size for message in messages])
        standing.polled(len(received), size)
        self.held_bytes += size
        if parts.filter is not None:
            keep = parts.filter.keep([one.raw for one in received])
            passed = [message for message, wanted in zip(messages, keep, strict=True) if not wanted]
            if passed:
                messages = [message for message, wanted in zip(messages, keep, strict=True) if wanted]
                standing.filtered(len(passed))
                parts.counters.filtered_out += len(passed)
                self.held_bytes -= sum([message.size for message in passed])
                self._settling.delete(passed, self._filtered_settled)
        self._visibility.hold(messages)
        self._groups.add(messages)

    def trouble(self, exc: SourceUnavailableError | SourceRefusedError, delay_s: float) -> tuple[float, float]:
        """Report it; return how long to wait, and the next delay."""
        result = exc.result if isinstance(exc, SourceRefusedError) else None
        wait_s = delay_s if result is None else _REFUSED_DELAY_S
        if self._standing.source_trouble(str(exc), result=result):
            event = "source.unavailable" if result is None else "source.refused"
            self._standing.log.warning(event, error=str(exc), retry_in_s=wait_s)
        return wait_s * self._parts.random.uniform(0.5, 1), min(_MAX_DELAY_S, delay_s * 2)

    def _filtered_settled(self, _deleted: list[Message], given_up: list[Message]) -> None:
        """Learn that messages filtered out were deleted, or will be received and filtered once more."""
        if given_up:
            self._standing.log.warning("messages.not_deleted", messages=len(given_up))
        self._changed()

    def learn(self, facts: QueueFacts) -> None:
        """Take up the queue's visibility timeout."""
        mapping, timeout_s = self._parts.mapping, facts.visibility_s
        self._visibility_s = None
        needed_s = mapping.batching_window_s + (self._parts.function_timeout_s or LONGEST_TIMEOUT_S)
        if timeout_s == 0:
            self._visibility_s = timeout_s = NO_VISIBILITY_S
        if mapping.batching_window_s and not self._visibility.extends and needed_s > timeout_s:
            # Waiting for the window costs visibility; without the heartbeat it is asked for at once, as AWS did.
            timeout_s = min(int(needed_s) + _WINDOW_MARGIN_S, int(MAX_HIDDEN_S))
            self._visibility_s = timeout_s
        self._visibility.timeout_s = self._standing.visibility_s = timeout_s
