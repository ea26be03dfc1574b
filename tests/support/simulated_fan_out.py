"""Enhanced fan-out of a simulated stream: SubscribeToShard for one consumer, in the loop's time, with seeded trouble.

As AWS has it: a subscription ends after a while, within five seconds another one is refused, after them it takes the
first one's place; a quiet shard says so every few seconds; the last event of a closed shard names its children.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from invocation.classify import Answer, Failure, FailureKind
from pollers.sources.kinesis_events import CONTENT_TYPE
from tests.support.event_stream import exception, initial_response, shard_event
from tests.support.simulated_kinesis import ARN, PAGE, refused
from tests.support.virtual_loop import true_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from tests.support.simulated_kinesis import SimulatedShard, SimulatedStream

CONSUMER = f"{ARN}/consumer/fast:1"
_TURN_S = 5.0
_QUIET_S = 5.0
_CALL_S = 1.0


class SimulatedFanOut:
    """The stream with a consumer. `pollers.sources.kinesis_subscription.Caller`."""

    def __init__(self, stream: SimulatedStream, random: Random, *, life_s: float = 60.0, broken: float = 0.01) -> None:
        self.stream = stream
        self.random = random
        self.life_s = life_s
        self.broken = broken  # how often an event is a subscription's last, one way or another
        self._current: dict[str, _Subscription] = {}
        self._called_at: dict[str, float] = {}

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """Answer every other call."""
        return await self.stream.call(region, operation, body, timeout_s=timeout_s, max_answer_bytes=max_answer_bytes)

    async def open(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> _Subscription | Answer | Failure:
        """Answer SubscribeToShard."""
        request = json.loads(body)
        assert (operation.rpartition(".")[2], request["ConsumerARN"]) == ("SubscribeToShard", CONSUMER)
        shard = self.stream.all[request["ShardId"]]
        self.stream.calls["SubscribeToShard"] += 1
        now = true_time()
        hasty = now - self._called_at.get(shard.id, -_CALL_S) < _CALL_S
        self._called_at[shard.id] = now
        await asyncio.sleep(self.stream.latency_s())
        if (error := self.stream.accident("SubscribeToShard")) is not None:
            return error
        if hasty:
            return refused("LimitExceededException")
        return self._subscribe(shard, request["StartingPosition"])

    def _subscribe(self, shard: SimulatedShard, start: dict[str, Any]) -> _Subscription | Answer:
        if not self.stream.kept(shard):
            return refused("ResourceNotFoundException")
        place: int | None = 0
        if "SequenceNumber" in start:
            place = shard.place_after(int(start["SequenceNumber"]))
        elif "Timestamp" in start:
            place = shard.place_from(start["Timestamp"])
        if place is None:
            return refused("InvalidArgumentException")
        former = self._current.get(shard.id)
        made = _Subscription(self, shard, place)
        if former is not None:
            if made.began_at - former.began_at < _TURN_S:
                self.stream.calls["SubscribeToShard in use"] += 1
                return refused("ResourceInUseException")
            former.taken = True
        self._current[shard.id] = made
        return made


class _Subscription:
    """`pollers.sources.kinesis_subscription.OpenAnswer`."""

    def __init__(self, consumer: SimulatedFanOut, shard: SimulatedShard, place: int) -> None:
        self._consumer = consumer
        self._shard = shard
        self._place = place
        self.began_at = true_time()
        self.taken = False
        self._out = initial_response()
        self._then: Failure | None = None  # after what is out
        self._over = False
        self._closed = False

    @property
    def headers(self) -> Mapping[str, str]:
        """Be an event stream."""
        return {"Content-Type": CONTENT_TYPE}

    async def read(self) -> bytes | Failure:
        """Give some bytes of what there is."""
        assert not self._closed
        if not self._out and not self._over:
            await self._next_event()
        if self._out:
            cut = self._consumer.random.choice((len(self._out), self._consumer.random.randint(1, len(self._out))))
            data, self._out = self._out[:cut], self._out[cut:]
            return data
        return self._then or b""

    def close(self) -> None:
        """Note it."""
        self._closed = True

    async def _next_event(self) -> None:
        """Have bytes to send, or the end."""
        consumer, shard, random = self._consumer, self._shard, self._consumer.random
        until = true_time() + _QUIET_S
        await asyncio.sleep(random.uniform(0.02, 0.07))
        while true_time() < until and not self._something():  # noqa: ASYNC110 - the loop's time is free
            await asyncio.sleep(random.uniform(0.05, 0.25))
        if true_time() - self.began_at >= consumer.life_s:
            self._over = True
        elif self.taken:
            self._out, self._over = exception("ResourceInUseException"), True
        elif not consumer.stream.kept(shard):
            self._out, self._over = exception("ResourceNotFoundException"), True
        elif random.random() < consumer.broken:
            await self._break()
        else:
            self._out = self._event()

    def _something(self) -> bool:
        shard = self._shard
        return self._place < len(shard.rows) or shard.ends is not None or self.taken

    async def _break(self) -> None:
        consumer = self._consumer
        way = consumer.random.choice(("silence", "cut", "failure", "end"))
        consumer.stream.calls[f"subscriptions with {way}"] += 1
        if way == "silence":
            await asyncio.Event().wait()
        self._over = True
        if way == "cut":
            event = self._event()
            self._out = event[: consumer.random.randrange(len(event))]
            self._then = Failure(FailureKind.CUT_SHORT)
        elif way == "failure":
            self._out = exception("InternalFailureException")

    def _event(self) -> bytes:
        shard, stream = self._shard, self._consumer.stream
        rows = shard.rows[self._place : self._place + PAGE]
        self._place += len(rows)
        if shard.ends is not None and self._place == len(shard.rows):
            self._over = True
            children = [child.id for child in stream.all.values() if shard.id in child.parents]
            return shard_event(rows, children=children)
        go_on = shard.numbers[self._place - 1] if self._place else shard.begins
        return shard_event(rows, go_on=str(go_on), behind_ms=stream.behind_ms(shard, self._place))
