"""What the console shows, read once a second for everybody who looks, and by nobody when nobody does.

A client that reads slowly gets the newest document when it is ready for one, and never a queue of old ones: what the
node keeps for it is one document in the making. The pages work out rates from documents that follow each other.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

from controlplane.flows import Flow, flow_of
from controlplane.status import Status  # noqa: TC001 - a field of a struct
from model.errors import NotFoundError, RefusedError, UnavailableError
from pollers.counters import DURATION_BOUNDS_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from node.runtimes import Catalogue
    from pollers.counters import Counters, MeterLabels, Meters

log = structlog.get_logger(__name__)

EVERY_S = 1.0
READ_LIMIT_S = 10.0
_SHARE = 10
"""Reading and encoding takes at most one part of so many of the node's time, as far as `_LONGEST_S` allows."""
_LONGEST_S = 5.0  # a page that hears nothing for long takes its connection for lost
MAX_FOLLOWERS = 32


class Work(msgspec.Struct, frozen=True):
    """What a mapping's function did on the answering node since the node started."""

    invoked: int  # records; a retried one counts again
    failed: int  # records of failed invocations
    throttles: int  # invocations
    durations: list[int]  # invocations by `bounds_s`, not cumulative; the last ones took longer
    durations_sum_s: float


class View(msgspec.Struct, frozen=True):
    """One document of the feed."""

    at_ms: float  # epoch, by the node's clock
    bounds_s: tuple[float, ...]  # of the buckets of `Work.durations`
    status: Status
    flows: dict[str, Flow]  # by UUID
    work: dict[str, Work]  # by name


def work_of(meters: Iterable[tuple[MeterLabels, Counters]]) -> dict[str, Work]:
    """Return what each mapping's function did here. Pure."""
    return {
        labels.mapping: Work(
            invoked=counters.invoked,
            failed=counters.failed_invoke,
            throttles=counters.throttles,
            durations=list(counters.durations.buckets),
            durations_sum_s=round(counters.durations.sum_s, 6),
        )
        for labels, counters in meters
    }


def reading(
    catalogue: Catalogue, meters: Meters, status: Callable[[], Awaitable[Status]]
) -> Callable[[], Awaitable[View]]:
    """Return what reads a node's present document."""

    def flows() -> Iterator[tuple[str, Flow]]:
        for record in catalogue:
            with suppress(NotFoundError, RefusedError):  # a document this version does not understand
                yield str(record.id), flow_of(catalogue.mapping(record.id))

    async def read() -> View:
        seen = await status()
        return View(round(time.time() * 1000), DURATION_BOUNDS_S, seen, dict(flows()), work_of(meters))

    return read


class TooManyFollowersError(UnavailableError):
    """As many look already as the node has room for, or it is draining."""


class Feed:
    """The documents, as server-sent events. Run `run()` beside the node; `stop()` ends it for everybody who looks.

    `read` returns the present document.
    """

    def __init__(
        self, read: Callable[[], Awaitable[View]], *, every_s: float = EVERY_S, max_followers: int = MAX_FOLLOWERS
    ) -> None:
        self._read = read
        self._every_s = every_s
        self._max_followers = max_followers
        self._followers = 0
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()  # replaced with each event, so that everybody who waits for it wakes once
        self._latest: bytes | None = None
        self._stopped = False

    @property
    def followers(self) -> int:
        """How many look now."""
        return self._followers

    def stop(self) -> None:
        """Say good-bye to everybody who looks, and take nobody else."""
        self._stopped = True
        self._news.set()

    async def run(self) -> None:
        """Read for as long as somebody looks, until cancelled."""
        while True:
            await self._wanted.wait()
            began = time.perf_counter()
            self._tell(await self._event())
            took_s = time.perf_counter() - began
            await asyncio.sleep(pause_s(took_s, every_s=self._every_s))

    @contextmanager
    def following(self) -> Iterator[AsyncIterator[bytes]]:
        """Yield events from now on, to the node's drain. Raises `TooManyFollowersError`."""
        if self._stopped:
            raise TooManyFollowersError("this node is draining")
        if self._followers >= self._max_followers:
            raise TooManyFollowersError(f"{self._max_followers} consoles look at this node already")
        self._followers += 1
        self._wanted.set()
        try:
            yield self._events()
        finally:
            self._leave()

    async def _events(self) -> AsyncIterator[bytes]:
        while not self._stopped:
            news = self._news
            if self._latest is not None:
                yield self._latest
            await news.wait()  # set already if a document came while this one was being sent
        yield encoded("bye", {"message": "this node is draining"})

    def _leave(self) -> None:
        self._followers -= 1
        if not self._followers:
            self._wanted.clear()
            self._latest = None  # whoever comes next is not shown what was then

    def _tell(self, event: bytes) -> None:
        if self._stopped or not self._followers:
            return
        self._latest = event
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _event(self) -> bytes:
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                return encoded("view", await self._read())
        except TimeoutError:
            return encoded("trouble", {"message": f"the store did not answer within {READ_LIMIT_S:g} s"})
        except UnavailableError as error:
            return encoded("trouble", {"message": str(error)})
        except Exception:  # a supervision point: whoever looks is told, and the node goes on
            log.exception("console.failed")
            return encoded("trouble", {"message": "internal error; the node's log has it"})


def pause_s(took_s: float, *, every_s: float) -> float:
    """Return how long to wait after a reading. Most of what a slow one took may have been the store's time. Pure."""
    return max(every_s, min(_LONGEST_S, took_s * (_SHARE - 1)))


def encoded(event: str, data: object) -> bytes:
    """Encode a server-sent event. JSON has no line breaks outside of strings, and escapes those inside."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))
