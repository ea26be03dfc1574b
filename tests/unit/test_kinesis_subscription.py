"""SubscribeToShard over a connection: what is asked, what comes, and what errors say should be done."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from model.errors import EsmdError, RefusedError, SourceRefusedError, SourceUnavailableError, UnavailableError
from model.ids import Position, ShardId
from model.shard import BEGINNING, at_time
from pollers.sources.kinesis_api import NotInStreamError, ThrottledError
from pollers.sources.kinesis_subscription import (
    SILENCE_S,
    FanOutUnsupportedError,
    InUseError,
    StrangeAnswerError,
    Subscriber,
    Subscription,
)
from tests.support.event_stream import error, exception, initial_response, shard_event
from tests.support.fan_out_script import CONSUMER, END, HEAD, ScriptedAnswer, piece, scripted_consumer, subscription
from tests.support.kinesis_script import asked, refuses, row, says
from tests.support.scripted_http import answer, close_silently, reset, say
from tests.support.times import EPOCH_2026

if TYPE_CHECKING:
    from model.ids import ShardOrigin
    from pollers.sources.kinesis_events import ShardEvent
    from tests.support.scripted_http import Behaviour, Exchange

SHARD = ShardId("shardId-000000000000")


async def read_all(subscribed: Subscription) -> list[ShardEvent]:
    """Read a subscription until it ends."""
    events = []
    while True:
        while (event := subscribed.take()) is not None:
            events.append(event)
        if not await subscribed.receive():
            return events


async def subscribe_and_read(subscriber: Subscriber) -> list[ShardEvent]:
    """Make a subscription and read it until it ends."""
    subscribed = await subscriber.subscribe(SHARD, None, BEGINNING)
    try:
        return await read_all(subscribed)
    finally:
        subscribed.close()


@pytest.mark.parametrize(
    ("after", "origin", "start"),
    [
        (Position("49"), BEGINNING, {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "49"}),
        (None, BEGINNING, {"Type": "TRIM_HORIZON"}),
        (None, at_time(EPOCH_2026), {"Type": "AT_TIMESTAMP", "Timestamp": 1767225600.0}),
    ],
)
async def test_a_subscription_is_signed_and_begins_after_the_checkpoint_or_at_the_origin(
    after: Position | None, origin: ShardOrigin, start: dict[str, Any]
) -> None:
    """The checkpoint counts before anything else."""
    async with scripted_consumer(subscription(initial_response(), shard_event([row(1)], go_on="7"))) as (
        subscriber,
        server,
    ):
        subscribed = await subscriber.subscribe(SHARD, after, origin)
        (event,) = await read_all(subscribed)
        subscribed.close()
    (request,) = server.requests
    assert asked(request) == (
        "SubscribeToShard",
        {"ConsumerARN": CONSUMER, "ShardId": SHARD, "StartingPosition": start},
    )
    assert request.headers["content-type"] == "application/x-amz-json-1.1"
    assert "us-east-1/kinesis/aws4_request" in request.headers["authorization"]
    assert event.ContinuationSequenceNumber == "7"


ERRORS = [
    (refuses("ResourceInUseException", "Another active subscription exists"), InUseError),
    (refuses("LimitExceededException"), ThrottledError),
    (refuses("UnknownOperationException"), FanOutUnsupportedError),
    (refuses("NotImplemented", status=501), FanOutUnsupportedError),
    (answer(501, b"<html>"), FanOutUnsupportedError),
    (says({"Records": []}), FanOutUnsupportedError),
    (say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), FanOutUnsupportedError),
    (answer(500, b"<html>"), StrangeAnswerError),
    (answer(404, b""), StrangeAnswerError),
    (answer(502, b"<html>"), SourceUnavailableError),
    (answer(503, b"<html>"), SourceUnavailableError),
    (answer(504, b""), SourceUnavailableError),
    (answer(429, b""), ThrottledError),
    (refuses("InternalFailure", status=500), SourceUnavailableError),
    (close_silently(), SourceUnavailableError),
    (reset(), SourceUnavailableError),
    (refuses("ResourceNotFoundException"), NotInStreamError),
    (refuses("AccessDeniedException"), SourceRefusedError),
    (refuses("InvalidArgumentException"), NotInStreamError),
]


@pytest.mark.parametrize(("behaviour", "error_type"), ERRORS)
async def test_an_answer_that_is_no_subscription_says_what_to_do(
    behaviour: Behaviour, error_type: type[Exception]
) -> None:
    """Wait, poll instead, or have someone act. A gateway's trouble is not the endpoint's lack."""
    async with scripted_consumer(behaviour) as (subscriber, _):
        with pytest.raises(EsmdError, match="consumer clicks/consumer/fast: SubscribeToShard") as caught:
            await subscriber.subscribe(SHARD, None, BEGINNING)
    assert type(caught.value) is error_type


@pytest.mark.parametrize(
    ("event", "error_type"),
    [
        (exception("ResourceInUseException"), InUseError),
        (exception("LimitExceededException"), ThrottledError),
        (exception("KMSThrottlingException"), ThrottledError),
        (exception("InternalFailureException"), SourceUnavailableError),
        (error("InternalFailure"), SourceUnavailableError),
        (error("Odd"), SourceUnavailableError),
        (exception("UnknownOperationException"), FanOutUnsupportedError),
        (exception("ResourceNotFoundException"), NotInStreamError),
        (exception("KMSDisabledException"), SourceRefusedError),
        (exception("KMSInvalidStateException"), SourceRefusedError),
        (exception("KMSAccessDeniedException"), SourceRefusedError),
        (exception("KMSNotFoundException"), SourceRefusedError),
        (exception("KMSOptInRequired"), SourceRefusedError),
        (b"no event stream" * 9, SourceUnavailableError),
    ],
)
async def test_an_error_inside_a_subscription_means_what_it_means_as_an_answer(
    event: bytes, error_type: type[Exception]
) -> None:
    """What came before it is handed out first."""
    async with scripted_consumer(subscription(shard_event(go_on="1"), event, then_hang=True)) as (subscriber, _):
        subscribed = await subscriber.subscribe(SHARD, None, BEGINNING)
        async with asyncio.timeout(5):
            with pytest.raises(EsmdError, match="SubscribeToShard") as caught:
                await read_all(subscribed)
        subscribed.close()
    assert type(caught.value) is error_type


@pytest.mark.parametrize(
    "behaviour",
    [
        subscription(shard_event(go_on="1"), then_reset=True),
        say(HEAD + piece(shard_event(go_on="1"))),
        say(HEAD + piece(shard_event([row(1)], go_on="1")[:-9]) + END),
        say(HEAD + b"zz\r\n"),
    ],
    ids=["reset", "closed between pieces", "an end in the middle of an event", "no chunks"],
)
async def test_a_broken_connection_is_trouble_and_no_end(behaviour: Behaviour) -> None:
    """Only a complete answer of complete events is an end in order."""
    async with scripted_consumer(behaviour) as (subscriber, _):
        async with asyncio.timeout(5):
            with pytest.raises(SourceUnavailableError, match="SubscribeToShard"):
                await subscribe_and_read(subscriber)


async def test_closing_ends_the_connection_and_no_other_subscription_gets_it() -> None:
    """Whatever was still to come on it is never taken for another shard's."""
    async with scripted_consumer(subscription(shard_event(go_on="1"), then_hang=True)) as (subscriber, server):
        for _ in range(2):
            subscribed = await subscriber.subscribe(SHARD, None, BEGINNING)
            await subscribed.receive()
            subscribed.close()
            subscribed.close()
        assert server.connections == 2


@pytest.mark.looptime
async def test_silence_is_death() -> None:
    """A connection that nobody ends and nothing comes over is given up after three of the events that should come."""
    subscribed = Subscription("consumer", ScriptedAnswer(shard_event(go_on="1"), then_silence=True))
    assert await subscribed.receive()
    with pytest.raises(SourceUnavailableError, match="nothing came for 15 s"):
        await subscribed.receive()
    assert asyncio.get_running_loop().time() == pytest.approx(SILENCE_S)


async def test_a_cancelled_wait_loses_nothing() -> None:
    """What arrives while nobody waits is there for whoever waits next, whenever the wait was cancelled."""
    stream = b"".join(shard_event(go_on=str(number)) for number in range(40))

    async def in_pieces(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.write(HEAD)
        for first in range(0, len(stream), 70):
            await exchange.write(piece(stream[first : first + 70]))
            for _ in range(4):
                await asyncio.sleep(0)
        await exchange.write(END)

    events: list[ShardEvent] = []
    cancelled = 0
    async with scripted_consumer(in_pieces) as (subscriber, _), asyncio.timeout(20):
        subscribed = await subscriber.subscribe(SHARD, None, BEGINNING)
        for cycles in itertools.cycle(range(7)):
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(subscribed.receive())
                for _ in range(cycles):
                    await asyncio.sleep(0)
                waiting.cancel()
            while (event := subscribed.take()) is not None:
                events.append(event)
            cancelled += waiting.cancelled()
            if not waiting.cancelled() and not waiting.result():
                break
        subscribed.close()
    assert [event.ContinuationSequenceNumber for event in events] == [str(number) for number in range(40)]
    assert cancelled > 10


async def test_missing_credentials_are_a_refusal_and_slow_ones_are_not() -> None:
    """What signing says is translated like an answer."""

    class Unsigned:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def open(self, *_: object, **__: object) -> Any:
            raise self.error

    with pytest.raises(SourceRefusedError, match="no AWS credentials"):
        await Subscriber(CONSUMER, Unsigned(RefusedError("no AWS credentials"))).subscribe(SHARD, None, BEGINNING)
    with pytest.raises(SourceUnavailableError, match="STS"):
        await Subscriber(CONSUMER, Unsigned(UnavailableError("STS"))).subscribe(SHARD, None, BEGINNING)
