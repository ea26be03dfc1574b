"""Tell the queue what became of messages: delete, keep hidden, give back. The loops around `pollers.visibility`.

Deletes are a group commit: one call is under way at a time, and what gathers meanwhile goes with the next, unless a
full call's worth waits. An entry that fails is tried again until its message's visibility ends, then forgotten: the
queue will hand the message out again. Nothing here decides what becomes of a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import structlog

from model.errors import SourceRefusedError, SourceUnavailableError
from pollers.queue_ports import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pollers.queue_ports import Message, Queue
    from pollers.visibility import Visibility

log = structlog.get_logger(__name__)

_AT_ONCE = 10  # entries of one call
_CALLS = 16  # deletes under way at once
_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 5.0
_GIVE_BACK_TRIES = 3
_LOOK_S = 5.0
_SOON_S = 0.001  # a timer may fire a little early


class _Doomed(NamedTuple):
    message: Message
    settled: Callable[[list[Message], list[Message]], None]
    due_at: float = 0.0  # not before
    tries: int = 0


class Settling:
    """The calls of one poller that settle messages. Run `run` in the poller's task group."""

    def __init__(self, queue: Queue, visibility: Visibility) -> None:
        self._queue = queue
        self._visibility = visibility
        self._pending: deque[_Doomed] = deque()
        self._later: list[_Doomed] = []
        self._calls = 0
        self._deleting = 0  # messages of these calls
        self._changed = asyncio.Event()
        self._said = ""

    @property
    def unsettled(self) -> int:
        """Messages whose deletion is not decided."""
        return len(self._pending) + len(self._later) + self._deleting

    def delete(self, messages: Sequence[Message], settled: Callable[[list[Message], list[Message]], None]) -> None:
        """Have messages deleted. `settled` is told which were deleted, and which could not be, in parts."""
        self._pending.extend([_Doomed(message, settled) for message in messages])
        self._changed.set()

    async def run(self) -> None:
        """Delete until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                next_at = self._bring_due(loop.time())
                while self._pending and self._calls < _CALLS and (not self._calls or len(self._pending) >= _AT_ONCE):
                    chunk = [self._pending.popleft() for _ in range(min(_AT_ONCE, len(self._pending)))]
                    self._calls += 1
                    self._deleting += len(chunk)
                    tasks.create_task(self._delete(chunk), name="delete messages")
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_at):
                        await self._changed.wait()

    def _bring_due(self, now: float) -> float | None:
        due = [doomed for doomed in self._later if doomed.due_at <= now]
        if due:
            self._later = [doomed for doomed in self._later if doomed.due_at > now]
            self._pending.extend(due)
        return min((doomed.due_at + _SOON_S for doomed in self._later), default=None)

    async def _delete(self, chunk: list[_Doomed]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await self._try("delete", self._queue.delete, [d.message for d in chunk])
        finally:
            self._calls -= 1
            self._deleting -= len(chunk)
            self._changed.set()
        now = loop.time()
        decided: dict[Callable[[list[Message], list[Message]], None], tuple[list[Message], list[Message]]] = {}
        for doomed, result in zip(chunk, results, strict=True):
            message = doomed.message
            due_at = now + min(_MAX_DELAY_S, _FIRST_DELAY_S * 2**doomed.tries)
            if result is Entry.AGAIN and due_at < message.until_at:
                self._later.append(_Doomed(message, doomed.settled, due_at, doomed.tries + 1))
            else:
                decided.setdefault(doomed.settled, ([], []))[result is not Entry.DONE].append(message)
        for settled, (deleted, given_up) in decided.items():
            settled(deleted, given_up)

    async def keep_hidden(self) -> None:
        """Extend the visibility of what is held, until cancelled."""
        loop = asyncio.get_running_loop()
        visibility = self._visibility
        while True:
            due_at = visibility.due_at()
            now = loop.time()
            if due_at is None or due_at > now:
                # What is received from now on is due after a visibility timeout, less the margin.
                look_at = now + min(_LOOK_S, max(0.05, visibility.timeout_s - 2 * visibility.margin_s))
                await asyncio.sleep(max(_SOON_S, (look_at if due_at is None else min(due_at, look_at)) - now))
                continue
            messages = visibility.due(now, _AT_ONCE)
            if messages and not await self._extend(messages):
                await asyncio.sleep(min(_FIRST_DELAY_S, visibility.margin_s / 10))

    async def _extend(self, messages: list[Message]) -> bool:
        """Extend up to ten; False when some should be tried again after a pause."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        seconds = self._visibility.extension_s(asked_at, messages)
        results = await self._try("extend", lambda receipts: self._queue.change_visibility(receipts, seconds), messages)
        for message, result in zip(messages, results, strict=True):
            if result is Entry.DONE:
                self._visibility.extended(message, asked_at + seconds)
            elif result is Entry.GONE:
                self._visibility.gone(message)
            else:
                self._visibility.again(message)
        return Entry.AGAIN not in results

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Make messages visible to others again, in the order given; best effort.

        The order is that of receipt. A queue that lets a group go as soon as its first message is visible then still
        finds the first one first, and one that goes by the time at which messages became visible does too. Whatever
        cannot be given back becomes visible when its visibility ends.
        """
        self._visibility.drop(messages)
        for begin in range(0, len(messages), _AT_ONCE):
            chunk = list(messages[begin : begin + _AT_ONCE])
            for tries in range(_GIVE_BACK_TRIES):
                results = await self._try(
                    "give back", lambda receipts: self._queue.change_visibility(receipts, 0), chunk
                )
                chunk = [message for message, result in zip(chunk, results, strict=True) if result is Entry.AGAIN]
                if not chunk:
                    break
                await asyncio.sleep(_FIRST_DELAY_S * 2**tries)

    async def _try(
        self, what: str, call: Callable[[list[str]], Awaitable[list[Entry]]], messages: Sequence[Message]
    ) -> list[Entry]:
        try:
            results = await call([message.receipt for message in messages])
        except (SourceUnavailableError, SourceRefusedError) as exc:
            if str(exc) != self._said:
                self._said = str(exc)
                log.warning("queue.not_settled", what=what, messages=len(messages), error=str(exc))
            return [Entry.AGAIN] * len(messages)
        self._said = ""
        return results
