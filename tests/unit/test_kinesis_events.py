"""The event stream of a subscription, taken apart: any cut of the bytes, and what is no sound stream."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invocation.aws_json import AwsError, aws_error
from invocation.classify import Answer
from pollers.sources.kinesis_events import MalformedStreamError, ShardEvent, ShardEvents
from tests.support.event_stream import error, exception, initial_response, message, shard_event
from tests.support.kinesis_script import row


def taken(events: ShardEvents) -> list[Any]:
    """Take everything that is complete."""
    found = []
    while (event := events.take()) is not None:
        found.append(event)
    return found


def one(data: bytes) -> Any:
    """Read a stream of one event."""
    events = ShardEvents()
    events.add(data)
    (event,) = taken(events)
    assert len(events) == 0
    return event


def test_an_event_holds_records_as_getrecords_has_them() -> None:
    """The same struct, the data still base64, with where to go on and how far behind."""
    event = one(shard_event([row(1), row(2, key="other")], go_on="99", behind_ms=1500))
    assert isinstance(event, ShardEvent)
    assert [(record.SequenceNumber, record.PartitionKey) for record in event.Records] == [
        (str(10**55 + 1), "k"),
        (str(10**55 + 2), "other"),
    ]
    assert bytes(event.Records[0].Data) == b'"SGVsbG8="'
    assert (event.ContinuationSequenceNumber, event.MillisBehindLatest, event.ChildShards) == ("99", 1500, None)


def test_the_end_of_a_shard_names_its_children_and_no_continuation() -> None:
    """That is how the last event is known."""
    event = one(shard_event(children=["shardId-1", "shardId-2"]))
    assert (len(event.ChildShards), event.ContinuationSequenceNumber) == (2, None)


@settings(deadline=None)  # the parser is imported with the first example
@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 5))
def test_events_come_out_however_the_bytes_are_cut(cuts: list[int], count: int) -> None:
    """Nothing depends on where a piece ends; what is not taken is counted."""
    stream = initial_response() + b"".join(shard_event([row(n)], go_on=str(n)) for n in range(count))
    bounds = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    events = ShardEvents()
    found: list[Any] = []
    for first, after in pairwise(bounds):
        events.add(stream[first:after])
        found += taken(events)
        assert len(events) <= after
    assert [event.ContinuationSequenceNumber for event in found] == [str(n) for n in range(count)]
    assert len(events) == 0


def test_an_unfinished_event_is_counted() -> None:
    """So that an end in the middle of one is known for what it is, and its bytes are accounted for."""
    stream = shard_event([row(1)])
    events = ShardEvents()
    events.add(stream[:-1])
    assert events.take() is None
    assert len(events) == len(stream) - 1


@pytest.mark.parametrize(
    ("data", "said", "status"),
    [
        (exception("ResourceInUseException", "taken"), AwsError("ResourceInUseException", "taken"), 400),
        (exception("InternalFailureException"), AwsError("InternalFailureException", "by order"), 400),
        (error("InternalError", "boom"), AwsError("InternalError", "boom"), 500),
        (message({":message-type": "exception"}, b"no JSON"), AwsError("HTTP 400", ""), 400),
    ],
)
def test_an_error_is_the_answer_that_would_say_the_same(data: bytes, said: AwsError, status: int) -> None:
    """One table decides about both."""
    answer = one(data)
    assert isinstance(answer, Answer)
    assert (aws_error(answer), answer.status) == (said, status)


def test_what_a_later_version_adds_is_passed_over() -> None:
    """Events of other types, and fields nobody knows."""
    strange = message({":message-type": "event", ":event-type": "Later"}, b"\x00")
    assert one(strange + shard_event(go_on="1") + strange).ContinuationSequenceNumber == "1"


def prelude(total: int, headers: int) -> bytes:
    """Make the beginning of a message with a right checksum."""
    lengths = struct.pack("!II", total, headers)
    return lengths + struct.pack("!I", crc32(lengths))


def broken_at(place: int) -> bytes:
    """Change one byte of a good event."""
    data = bytearray(shard_event([row(1)]))
    data[place] ^= 0x40
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        broken_at(1),
        broken_at(9),
        broken_at(30),
        broken_at(150),
        broken_at(-1),
        b"<html>" * 9,
        prelude(15, 0) + b"xxxx",
        prelude(2**31, 0),
        prelude(2**20, 2**19),
        message({":message-type": "event", ":event-type": "SubscribeToShardEvent"}, b'{"Records":7}'),
    ],
    ids=["length", "its checksum", "header", "payload", "checksum", "HTML", "short", "huge", "headers", "JSON"],
)
def test_an_unsound_stream_is_refused_at_once(data: bytes) -> None:
    """Before room is made for a length that nobody vouches for."""
    events = ShardEvents()
    events.add(data)
    with pytest.raises(MalformedStreamError):
        events.take()


@settings(deadline=None)  # same
@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    """Headers with lengths and types that cannot be, behind right checksums."""
    checked = prelude(16 + len(data), len(data)) + data
    events = ShardEvents()
    events.add(checked + struct.pack("!I", crc32(checked)))
    try:
        taken(events)
    except MalformedStreamError:
        return
