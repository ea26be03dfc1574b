"""Accepting asynchronous invocations: durably in the queue, or not at all (spec section 6.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from invocation.invoking import NotInvoked, out_of_service, throttled
from model.async_event import NewEvent
from model.errors import StoreUnavailableError
from statemgr.event_queue import MAX_QUEUE_BYTES, QueueFullError, partitions_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from statemgr.event_queue import EventQueue

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


_NO_LIMIT = 2**53 - 1
"""Of bytes: the largest whole number that every store knows. The last tenth of Redis's memory is spared anyway."""


class HasEvents(Protocol):
    """The store."""

    @property
    def events(self) -> EventQueue:
        """The queue of asynchronous invocations."""


class Acceptor:
    """Takes events into the queue, of which `max_bytes` may wait.

    `received` is told of each function that an event was accepted for.
    """

    def __init__(
        self,
        store: HasEvents,
        *,
        received: Callable[[str], None],
        max_bytes: Callable[[], int] = lambda: MAX_QUEUE_BYTES,
    ) -> None:
        self._store = store
        self._received = received
        self._max_bytes = max_bytes

    async def accept(
        self, line: str, asked: str, event: bytes, *, request_id: str, trace: str, bounded: bool = True
    ) -> NotInvoked | None:
        """Append an event to the queue; return why it was not. None: it is there, and will be dealt with.

        Not `bounded`: however much waits. For a result that another function is to have, and which keeps an event in
        the queue until it is there: a full queue would never become less full.

        `line` is the function's name in the configuration, `asked` what the caller called it. Where the store gave no
        answer the event may be there all the same: whoever tries again may have it invoked twice.
        """
        new = NewEvent(line, asked, request_id, trace, event)
        try:
            max_bytes = self._max_bytes() if bounded else _NO_LIMIT
            await self._store.events.append(new, partitions_of(line), max_bytes=max_bytes)
        except QueueFullError:
            return throttled(own_limit=False)
        except StoreUnavailableError as exc:
            log.warning("async.not_accepted", function=line, request_id=request_id, error=str(exc))
            return out_of_service("the event could not be stored")
        self._received(line)
        return None
