"""One shard of a stream being read by enhanced fan-out: a subscription, renewed as often as Kinesis ends it.

Nothing is read from the connection but when records are asked for, so a pump that is busy holds Kinesis back. When that
takes too long Kinesis ends the subscription, and the next one goes on behind what was received.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from model.errors import SourceRefusedError, SourceUnavailableError
from model.ids import Position, position_key
from model.record import Derived
from pollers.ports import Chunk, Lag
from pollers.sources.kinesis_api import ThrottledError
from pollers.sources.kinesis_fan_out_pace import FanOutPace
from pollers.sources.kinesis_subscription import FanOutUnsupportedError, InUseError, StrangeAnswerError

if TYPE_CHECKING:
    from model.ids import ShardId, ShardOrigin
    from pollers.sources.kinesis_api import KinesisApi
    from pollers.sources.kinesis_events import ShardEvent
    from pollers.sources.kinesis_subscription import Subscriber, Subscription

log = structlog.get_logger(__name__)

_OBJECT_BYTES = 400  # what one record takes in memory beside its data
_STRANGE_ANSWERS = 3  # in a row are no accident
_BEFORE_ALL = Position("0")


class Owner(Protocol):
    """The source, as this reader sees it."""

    @property
    def retention_s(self) -> float | None:
        """How long the stream keeps a record, if known."""

    def holds(self, delta: int) -> None:
        """Note that a reader holds more bytes, or less."""

    async def room_to_read(self) -> None:
        """Wait while the source's readers hold as much as they may together."""


class FanOutReader:
    """A shard read by a stream consumer. Raises `FanOutUnsupportedError` when the endpoint cannot do it."""

    def __init__(
        self,
        shard: ShardId,
        after: Position | None,
        origin: ShardOrigin,
        *,
        subscriber: Subscriber,
        api: KinesisApi,
        owner: Owner,
    ) -> None:
        self.shard = shard
        self._after = after  # sequence number of the last record received
        self._continue_after = after  # where the next subscription begins
        self._origin = origin
        self._subscriber = subscriber
        self._api = api
        self._owner = owner
        self._pace = FanOutPace()
        self._subscription: Subscription | None = None
        self._events = 0  # that the subscription has brought
        self._quiet = True  # its last event, if there was one, brought nothing
        self._doubtful = False  # a subscription ended after nothing more had come: the shard may be over
        self._strange = 0  # answers in a row
        self._ended = False
        self._closed = False
        self._held = 0  # bytes, as the owner was told
        self._behind_ms: int | None = None
        self._ailing = False  # there was trouble, and the pump knows
        self._log = log.bind(shard=shard)

    def __repr__(self) -> str:
        return f"<FanOutReader {self.shard} after={self._after}>"

    async def read(self) -> Chunk | None:
        """Wait for the records of the next event that has some: see `pollers.ports.ShardReader`."""
        while not self._ended:
            if self._closed:
                raise SourceRefusedError(f"{self.shard}: its reader is closed")
            chunk = await self._go_on()
            if chunk is not None and (chunk.raws or (self._ailing and not self._ended)):
                self._ailing = False
                return chunk
        return None

    def lag(self) -> Lag:
        """Tell what the last event told; the number of records is known only at the end of the shard."""
        retention_s = self._owner.retention_s
        if self._behind_ms is None:
            return Lag(None, retention_s=retention_s)
        return Lag(None if self._behind_ms else 0, self._behind_ms / 1000, retention_s=retention_s)

    async def close(self) -> None:
        """End the subscription, and read no more."""
        self._closed = True
        self._drop_subscription()

    async def _go_on(self) -> Chunk | None:
        """Subscribe, or wait for the next event. Cancelled: nothing is lost, and the subscription stays."""
        flowing = self._events > 0
        try:
            if self._subscription is None:
                await self._subscribe()
            elif (event := await self._event(self._subscription)) is not None:
                return self._received(event)
            else:
                await self._over()
        except (SourceUnavailableError, SourceRefusedError) as exc:
            self._drop_subscription()
            if self._is_for_the_pump(exc, flowing=flowing):
                self._ailing = True
                raise
        return None

    def _is_for_the_pump(self, exc: SourceUnavailableError | SourceRefusedError, *, flowing: bool) -> bool:
        """Decide about trouble: whether to tell of it, or just to subscribe anew.

        `flowing`: the subscription had brought something, and so will the next.
        """
        now = asyncio.get_running_loop().time()
        match exc:
            case InUseError():
                if flowing:
                    self._log.warning("kinesis.subscription_taken", error=str(exc))
                return self._pace.in_use(now)
            case ThrottledError():
                return self._pace.throttled(now)
            case StrangeAnswerError():
                self._strange += 1
                if self._strange == _STRANGE_ANSWERS:
                    raise FanOutUnsupportedError(str(exc)) from exc
                return False
            case SourceRefusedError():  # perhaps only the place to go on from
                usual, self._continue_after = self._continue_after == self._after, self._after
                return usual
            case _:
                if flowing:
                    self._doubtful = self._quiet
                    self._log.info("kinesis.subscription_lost", error=str(exc))
                return not flowing

    async def _subscribe(self) -> None:
        await self._look_for_the_end()
        if self._ended:
            return
        loop = asyncio.get_running_loop()
        if self._pace.due_at > loop.time():
            await asyncio.sleep(self._pace.due_at - loop.time())
        self._pace.asking(loop.time())
        self._subscription = await self._subscriber.subscribe(self.shard, self._continue_after, self._origin)
        self._quiet = True

    async def _event(self, subscription: Subscription) -> ShardEvent | None:
        """Wait for the next event; None when Kinesis has ended the subscription, as it does after five minutes."""
        while (event := subscription.take()) is None:
            self._account()
            if not subscription.received:
                await self._owner.room_to_read()
            if not await subscription.receive():
                return None
        return event

    def _received(self, event: ShardEvent) -> Chunk:
        self._events += 1
        self._strange = 0
        self._pace.flowing()
        self._behind_ms = event.MillisBehindLatest
        raws, go_on = event.Records, event.ContinuationSequenceNumber
        if raws:
            self._after = self._continue_after = Position(raws[-1].SequenceNumber)
        if go_on and position_key(Position(go_on)) > position_key(self._after or _BEFORE_ALL):
            self._continue_after = Position(go_on)
        self._quiet = not (raws and go_on)
        self._ended = bool(event.ChildShards)
        if self._ended:
            self._drop_subscription()
        self._account()
        size = sum([len(memoryview(raw.Data)) for raw in raws]) + len(raws) * _OBJECT_BYTES
        return Chunk(raws, Derived(int, [raw.SequenceNumber for raw in raws]), size)

    async def _over(self) -> None:
        """Let a subscription be over that Kinesis has ended."""
        events, self._doubtful = self._events, self._quiet
        self._drop_subscription()
        await self._look_for_the_end()
        if not events and not self._ended:
            raise SourceUnavailableError(f"{self.shard}: a subscription ended before its first event")

    async def _look_for_the_end(self) -> None:
        """Ask by polling whether the shard is over, where a subscription that brought nothing more leaves it in doubt.

        Kinesis tells the end with the last event. kinesis-local and LocalStack do not, and reading on would find
        nothing for ever.
        """
        if not self._doubtful:
            return
        with suppress(SourceUnavailableError, SourceRefusedError):  # a consumer need not be permitted to poll
            iterator = await self._api.iterator(self.shard, self._after, self._origin)
            page = await self._api.get_records(iterator, limit=1)
            self._ended = not page.Records and not page.NextShardIterator
        self._doubtful = False

    def _drop_subscription(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        self._events = 0
        self._account()

    def _account(self) -> None:
        """Tell the owner what is held of events on their way."""
        held = 0 if self._subscription is None else self._subscription.received
        self._owner.holds(held - self._held)
        self._held = held
