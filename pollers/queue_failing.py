"""Which messages of a queue have failed and are not through yet, as far as this poller knows. Pure, for operators.

What failed is left to the queue, and may come to another poller, or go to the queue's own dead-letter queue: then
nobody tells. So an entry is forgotten when its message had time to come back several times and did not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.progress import Blocking
from pollers.parking_lot import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pollers.queue_ports import Message

MOST = 100
_ROUNDS = 3.0  # visibility timeouts after which a message that did not come back is elsewhere
_LEAST_S = 60.0


class _Failed(NamedTuple):
    message: str
    records: int
    receives: int
    since: float
    failed_at: float


class Failing:
    """The failing groups of a FIFO queue, or the failing messages of a standard one. Times are epoch seconds."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._failed: dict[str, _Failed] = {}  # those that failed longest ago first

    def __len__(self) -> int:
        return len(self._failed)

    def failed(self, messages: Sequence[Message], now_s: float) -> None:
        """Note a batch, or part of one, that the function failed on."""
        for message in messages:
            place, name = self._place(message), str(message.record.item_id)
            before = self._failed.pop(place, None)
            since = before.since if before is not None and before.message == name else now_s
            self._failed[place] = _Failed(name, len(messages), message.receives, since, now_s)
        while len(self._failed) > MOST:
            del self._failed[next(iter(self._failed))]

    def finished(self, messages: Iterable[Message]) -> None:
        """Note messages that the function took."""
        if self._failed:
            for message in messages:
                self._failed.pop(self._place(message), None)

    def blocking(self, visibility_s: float, now_s: float) -> Blocking | None:
        """Return what has been failing longest, after forgetting what is elsewhere by now."""
        patience_s = max(_LEAST_S, _ROUNDS * visibility_s)
        gone = [place for place, one in self._failed.items() if now_s - one.failed_at > patience_s]
        for place in gone:
            del self._failed[place]
        if not self._failed:
            return None
        place, first = min(self._failed.items(), key=lambda item: item[1].since)
        return Blocking(
            record=printable(first.message),
            key=printable(place) if self._ordered else None,
            records=first.records,
            failures=first.receives,
            invocations=first.receives,
            setbacks=first.receives,
            since=round(first.since, 3),
            retry_at=round(first.failed_at + visibility_s, 3),
            others=len(self._failed) - 1,
        )

    def _place(self, message: Message) -> str:
        return (message.group or "") if self._ordered else str(message.record.item_id)
