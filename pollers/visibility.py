"""When to extend the visibility of the messages held here, and which have become visible to others. Pure.

A message stays hidden for the queue's visibility timeout from its receive on. What is held longer, because its handler
runs or its target throttles, is extended shortly before that ends; a handler that is quick enough never causes a call.
A message whose batch failed is dropped from here: its retry comes when its visibility ends.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pollers.queue_ports import Message

MAX_HIDDEN_S = 43_200.0
"""What the queue allows from one receive on, whatever is asked."""

_LONGEST_MARGIN_S = 30.0
_UNCERTAIN_S = 1.0


def hidden_until(answered_at: float, visibility_s: float) -> float:
    """Until when a message is surely hidden, whose receive was answered at `answered_at` (event-loop time).

    The queue counted from a little before the answer came.
    """
    return answered_at + visibility_s - min(_UNCERTAIN_S, visibility_s / 10)


def too_short(visibility_s: int, function_timeout_s: float | None) -> str | None:
    """Tell in AWS's words that a function may run for longer than a queue hides its messages (spec section 1.3).

    None: it may not, or nobody knows how long it may run.
    """
    if function_timeout_s is None or function_timeout_s <= visibility_s:
        return None
    limit = f"Function timeout: {function_timeout_s:g} seconds"
    return f"Queue visibility timeout: {visibility_s} seconds is less than {limit}"


class Visibility:
    """The messages held here, by when they become visible."""

    def __init__(self, timeout_s: float, *, extends: bool) -> None:
        self.timeout_s = timeout_s
        self.extends = extends
        self._held: dict[str, Message] = {}  # by receipt
        self._lapsed = False
        self._ends: list[tuple[float, str]] = []  # a heap; entries that are not true any more are passed over

    def __len__(self) -> int:
        return len(self._held)

    @property
    def margin_s(self) -> float:
        """How long before the end of its visibility a message is extended: time to try several times."""
        return min(self.timeout_s / 3, _LONGEST_MARGIN_S)

    def hold(self, messages: Iterable[Message]) -> None:
        """Watch over messages just received."""
        for message in messages:
            self._held[message.receipt] = message
            heappush(self._ends, (message.until_at, message.receipt))

    def drop(self, messages: Iterable[Message]) -> None:
        """Watch over them no more: finished, failed, or given back."""
        for message in messages:
            self._held.pop(message.receipt, None)

    def due_at(self) -> float | None:
        """When the next message is to be extended; None: none."""
        first = self._first() if self.extends else None
        return None if first is None else first.until_at - self.margin_s

    def due(self, now: float, most: int) -> list[Message]:
        """Take up to `most` messages to extend now; `extended`, `again` or `gone` must follow for each.

        Those past their end are not worth it any more, and are watched over no more.
        """
        found: list[Message] = []
        while self.extends and len(found) < most:
            message = self._first()
            if message is None or message.until_at - self.margin_s > now:
                break
            heappop(self._ends)
            if message.until_at <= now or now >= message.last_at - 1:
                del self._held[message.receipt]
                self._lapsed = True
            else:
                found.append(message)
        return found

    def again(self, message: Message) -> None:
        """Note that an extension has to be tried again."""
        if message.receipt in self._held:
            heappush(self._ends, (message.until_at, message.receipt))

    def extension_s(self, now: float, messages: Iterable[Message]) -> int:
        """For how long to hide them, in whole seconds from now: not beyond what the queue allows any of them."""
        return max(1, int(min([self.timeout_s, *[message.last_at - now for message in messages]])))

    def extended(self, message: Message, until_at: float) -> None:
        """Note that the queue agreed."""
        message.until_at = until_at
        self.again(message)

    def gone(self, message: Message) -> None:
        """Note that the queue does not know the receipt any more: others may have the message."""
        message.until_at = float("-inf")
        self._lapsed = True
        self._held.pop(message.receipt, None)

    def lapsed(self, now: float) -> bool:
        """Tell whether any message held became visible since this was asked last."""
        while (message := self._first()) is not None and message.until_at <= now:
            heappop(self._ends)
            del self._held[message.receipt]
            self._lapsed = True
        lapsed, self._lapsed = self._lapsed, False
        return lapsed

    def _first(self) -> Message | None:
        while self._ends:
            until_at, receipt = self._ends[0]
            message = self._held.get(receipt)
            if message is not None and message.until_at == until_at:
                return message
            heappop(self._ends)
        return None


def visible(message: Message, now: float) -> bool:
    """Whether others may see the message again, so that this receive of it must not be worked on."""
    return message.until_at <= now
