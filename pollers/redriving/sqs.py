"""Failure documents in an SQS queue.

Looking is receiving: a message that was received is hidden from others, and its receive count grows. What is being
delivered, and what stays, is kept hidden by extending a short visibility timeout, so that a killed node's messages are
visible again within it. What stays is shown again in the end.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from model.errors import EsmdError, RefusedError, UnavailableError
from pollers.queue_ports import Entry
from pollers.redriving.archive import Found
from pollers.sources.sqs_api import MAX_ENTRIES, decoded_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pollers.queue_ports import Queue

log = structlog.get_logger(__name__)

HIDDEN_S = 60
MAX_HELD = 10_000
"""Messages that stay and are kept hidden: beyond them the redrive ends, and says so."""

_WAIT_S = 1
_EMPTY = 2  # receives in a row that bring nothing new: there is nothing left
_EXTEND_S = HIDDEN_S / 3
_CLOSE_S = 10.0


class SqsArchive:
    """`pollers.redriving.archive.Archive`. `looks`: nothing is to be changed."""

    def __init__(self, queue: Queue, name: str, *, looks: bool = False) -> None:
        self._queue = queue
        self._name = name
        self._looks = looks
        self._held: dict[str, str] = {}  # message id to receipt, of everything received and not removed
        self._kept: set[str] = set()
        self._empty = 0

    def __str__(self) -> str:
        return f"SQS queue {self._name}"

    async def count(self) -> int | None:
        """Ask the queue. Raises `RefusedError` where even a look would move messages away."""
        number = (await self._queue.facts()).visible
        if self._looks and (receives := await self._queue.moves_after()) is not None:
            raise RefusedError(
                f"{self} holds about {number:,} documents; looking at them is receiving them, and after {receives} "
                "receives the queue moves a message away"
            )
        return number

    async def read(self) -> list[Found] | None:
        """Receive up to ten messages."""
        if self._empty >= _EMPTY:
            return None
        if len(self._kept) >= MAX_HELD:
            raise RefusedError(f"{self}: {MAX_HELD:,} documents stay, and no more can be kept apart at a time")
        received = await self._queue.receive(MAX_ENTRIES, wait_s=_WAIT_S, visibility_s=HIDDEN_S)
        new: list[Found] = []
        for one in received:
            message = one.raw
            if message.MessageId not in self._held:
                new.append(Found(message.MessageId, decoded_body(message), message.MessageId))
            self._held[message.MessageId] = one.receipt  # the last receipt is the one that counts
        self._empty = 0 if new else self._empty + 1
        return new

    async def remove(self, found: Sequence[Found]) -> None:
        """Delete messages."""
        left = [one.handle for one in found if one.handle in self._held]
        for ids in _tens(left):
            results = await self._queue.delete([self._held[id_] for id_ in ids])
            for id_, result in zip(ids, results, strict=True):
                if result is Entry.AGAIN:
                    raise UnavailableError(f"{self} does not delete messages now")
                if result is Entry.GONE:
                    log.warning("redrive.not_deleted", queue=self._name, message=id_)
                del self._held[id_]

    def keep(self, found: Sequence[Found], *, foreign: bool = False) -> None:  # noqa: ARG002 - all of them stay
        """Keep messages hidden until the end."""
        self._kept.update(one.handle for one in found)

    async def watch(self) -> None:
        """Extend the visibility of everything held."""
        while True:
            await asyncio.sleep(_EXTEND_S)
            with suppress(EsmdError):  # at worst they are visible too soon, and delivered twice
                await self._show(HIDDEN_S)

    async def close(self) -> None:
        """Show again what stays."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._show(0)
        except (EsmdError, TimeoutError) as exc:
            log.info("redrive.not_given_back", queue=self._name, error=str(exc), visible_in_s=HIDDEN_S)
        self._held.clear()

    async def _show(self, visibility_s: int) -> None:
        for receipts in _tens(list(self._held.values())):
            await self._queue.change_visibility(receipts, visibility_s)


def _tens(items: Sequence[str]) -> Iterable[Sequence[str]]:
    for first in range(0, len(items), MAX_ENTRIES):
        yield items[first : first + MAX_ENTRIES]
