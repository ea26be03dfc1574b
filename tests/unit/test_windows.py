"""Tumbling windows: which record belongs where, when a window is over, what a restart knows."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import ShardId
from model.mapping import KafkaSource, KinesisSource
from model.outcome import Delivered, FunctionFailed, PartlyFailed
from model.record import MAX_EVENT_BYTES, NO_RECORDS, Batch, Record, Records
from pollers.attempts import Attempts
from pollers.batcher import Batcher
from pollers.shard_state import StoredState
from pollers.windowed import WindowedBatcher, WindowedExchange
from pollers.windows import GRACE_S, MAX_STATE_BYTES, StoredWindow, Window, Windows, over_at
from tests.support.pump_fakes import WindowEnvelope, record

SHARD = ShardId("shardId-000000000006")
STREAM = KinesisSource("arn:aws:kinesis:us-east-1:123456789012:stream/clicks")


class Shard:
    """Windows, batcher and exchange of one shard, put together as the pump does."""

    def __init__(
        self, *, length_s: int = 60, batch_size: int = 3, stored: StoredWindow | None = None, partial: bool = False
    ) -> None:
        self.windows = Windows(length_s, stored)
        self.exchange = WindowedExchange(WindowEnvelope(), self.windows, STREAM, SHARD, partial_responses=partial)
        self.over_at = 1000.0
        batcher = Batcher(batch_size=batch_size, window_s=300, overhead=self.exchange.reserve, now=0)
        self.batcher = WindowedBatcher(batcher, self.windows, self.exchange, over_at=lambda _: self.over_at)

    def accept(self, batch: Batch, state: bytes = b"{}") -> None:
        """Have the function take a batch."""
        outcome = self.exchange.read(Delivered(b'{"state":%b}' % state), batch)
        assert isinstance(outcome, Delivered)
        if batch.records:
            self.windows.accept(batch.records)
        else:
            self.windows.close()


def test_windows_are_counted_from_the_epoch() -> None:
    """Windows of two minutes begin at even minutes, and hold their beginning but not their end."""
    windows = Windows(120)
    noon_ms = 1_607_515_440_000  # 2020-12-09T12:04:00Z
    assert windows.assign(noon_ms).shown() == {"start": "2020-12-09T12:04:00Z", "end": "2020-12-09T12:06:00Z"}
    assert windows.assign(noon_ms + 119_999) == windows.assign(noon_ms)
    assert windows.assign(noon_ms + 120_000).start_s == noon_ms // 1000 + 120


def test_a_late_record_counts_in_the_window_that_is_open() -> None:
    """A time before the present window does not open an earlier one again."""
    windows = Windows(60)
    assert windows.assign(61_000) == Window(60, 120)
    assert windows.assign(59_999) == Window(60, 120)


def test_a_record_later_than_its_windows_end_counts_in_the_next() -> None:
    """A window that was ended stays ended, also for the next holder."""
    windows = Windows(60)
    windows.enter(windows.assign(61_000))
    windows.accept(Records.of([record(1)]))
    windows.close()
    for present in (windows, Windows(60, windows.stored())):
        assert present.assign(119_000) == Window(120, 180)


@given(st.lists(st.integers(0, 1_000_000), min_size=1), st.integers(1, 900))
def test_windows_only_move_forward(arrivals_ms: list[int], length_s: int) -> None:
    """Each record gets one aligned window, its own unless a later one has begun."""
    windows = Windows(length_s)
    latest = 0
    for arrival_ms in arrivals_ms:
        window = windows.assign(arrival_ms)
        own = arrival_ms // 1000 // length_s * length_s
        assert window == Window(max(own, latest), max(own, latest) + length_s)
        latest = window.start_s


def test_a_changed_length_lets_the_open_window_end_as_it_was() -> None:
    """The open window keeps its end; the next one has the new length."""
    windows = Windows(90, StoredWindow(60, 120, last="4"))
    assert windows.open == Window(60, 120)
    assert windows.assign(119_000) == Window(60, 120)
    assert windows.assign(121_000) == Window(90, 180)


@pytest.mark.parametrize("early", [True, False])
def test_an_open_window_survives_storing(*, early: bool) -> None:
    """Window, state byte for byte, last record and an owed early end come back."""
    state = b'{"big": 123456789012345678901234567890, "s":"\xc3\xa9"}'
    kept = StoredState(window=StoredWindow(60, 120, "7", early, msgspec.Raw(state))).encode()
    windows = Windows(60, StoredState.decode(kept).window)
    assert (windows.open, windows.state, windows.last, windows.is_early) == (Window(60, 120), state, "7", early)
    assert StoredState(window=windows.stored()).encode() == kept


def test_sequence_numbers_of_any_length_can_be_stored() -> None:
    """Kinesis' are far beyond 64 bits."""
    windows = Windows(60)
    windows.enter(windows.assign(0))
    windows.accept(Records.of([record(10**127)]))
    kept = StoredState.decode(StoredState(window=windows.stored()).encode())
    assert Windows(60, kept.window).last == str(10**127)


def test_without_windows_nothing_is_stored() -> None:
    """The stored state of other mappings is as small as ever."""
    assert StoredState().encode() == b""
    assert b"window" not in StoredState(attempts={1: Attempts(1, 1, 1)}).encode()


# When a window is over


def test_a_window_is_over_after_the_grace() -> None:
    """Two minutes of the wall clock beyond its end, however long ago the last record came."""
    assert over_at(60, now=10, now_s=30, behind_s=0, settled_at=0) == 10 + 30 + GRACE_S
    assert over_at(60, now=10, now_s=60 + GRACE_S, behind_s=0, settled_at=10 - GRACE_S) <= 10


def test_a_window_is_not_over_before_it_was_read_to_its_end() -> None:
    """A reader that is behind, or does not know, is asked again soon; what it may still find belongs to the window."""
    assert over_at(60, now=10, now_s=1000, behind_s=900, settled_at=-1000) == 15
    assert over_at(60, now=10, now_s=1000, behind_s=None, settled_at=-1000) == 15
    assert over_at(60, now=10, now_s=1000, behind_s=800, settled_at=-1000) <= 10


def test_a_source_in_trouble_tells_nothing_about_the_end() -> None:
    """The grace counts from when the source began to answer, or answered again."""
    assert over_at(60, now=1000, now_s=10_000, behind_s=0, settled_at=990) == 990 + GRACE_S


# Events and answers


def test_the_event_has_the_windows_keys_in_order() -> None:
    """As in the specification, the state byte for byte as the function wrote it."""
    shard = Shard(length_s=120)
    shard.batcher.add(Records.of([Record(n, 1_607_497_440_000, b'{"n":%d}' % n, None, n) for n in (1, 2)]))
    first = shard.batcher.take()
    assert shard.exchange.event(first.records) == (
        b'{"Records":[{"n":1},{"n":2}],"window":{"start":"2020-12-09T07:04:00Z","end":"2020-12-09T07:06:00Z"},"state":{},'
        b'"shardId":"shardId-000000000006","eventSourceARN":"arn:aws:kinesis:us-east-1:123456789012:stream/clicks",'
        b'"isFinalInvokeForWindow":false,"isWindowTerminatedEarly":false}'
    )
    shard.accept(first, b'{"sum" : 3.10}')
    assert shard.exchange.event(NO_RECORDS) == (
        b'{"Records":[],"window":{"start":"2020-12-09T07:04:00Z","end":"2020-12-09T07:06:00Z"},"state":{"sum" : 3.10},'
        b'"shardId":"shardId-000000000006","eventSourceARN":"arn:aws:kinesis:us-east-1:123456789012:stream/clicks",'
        b'"isFinalInvokeForWindow":true,"isWindowTerminatedEarly":false}'
    )


@given(st.lists(st.integers(10, 90), min_size=1, max_size=4), st.integers(0, 500))
def test_the_size_of_an_event_is_known(sizes: list[int], state_size: int) -> None:
    """What is held against the largest payload is never less than the event has, and hardly more."""
    shard = Shard(batch_size=1)
    shard.batcher.add(Records.of([record(n, size=size) for n, size in enumerate(sizes)]))
    state = json.dumps({"s": "." * state_size}).encode()
    for _ in sizes:
        batch = shard.batcher.take()
        assert batch.size == len(shard.exchange.event(batch.records))
        shard.accept(batch, state)
    final = shard.batcher.take()
    assert 0 <= final.size - len(shard.exchange.event(NO_RECORDS)) <= 2


def test_a_consumers_windows_name_the_consumer() -> None:
    """The event's source is the ARN that the mapping names; Kafka's may have none."""
    for source, arn in (
        (KinesisSource("stream", "stream/consumer"), "stream/consumer"),
        (KafkaSource("t", "g"), ""),
    ):
        windows = Windows(60, StoredWindow(0, 60))
        exchange = WindowedExchange(WindowEnvelope(), windows, source, SHARD, partial_responses=False)
        assert json.loads(exchange.event(NO_RECORDS))["eventSourceARN"] == arn


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"{}", b'""', b"[]", b"7", b"not json", b'{"state":null}', b'{"state":[]}', b'{"state":"{}"}',
        b'{"State":{}}', b'{"state":{},', b'{"state":{"a":NaN}}', b'{"state":{"a":"\xff"}}', b'{"state":{"a":01}}',
        b"[" * 100_000, b'{"state":' + b'{"a":' * 100_000, b'{"state":{"a":"%b"}}' % (b"." * MAX_EVENT_BYTES),
        b'{"state":{},"batchItemFailures":[{"itemIdentifier":9}]}', b'{"state":{},"batchItemFailures":7}',
    ],
    ids=range(20),
)  # fmt: skip
def test_an_answer_without_a_usable_state_is_a_failure(body: bytes) -> None:
    """Also one with a bad list of failed items. The state before stays."""
    shard = Shard(partial=True)
    shard.batcher.add(Records.of([record(1), record(2)]))
    batch = shard.batcher.take()
    outcome = shard.exchange.read(Delivered(body), batch)
    assert isinstance(outcome, FunctionFailed)
    assert outcome.function_error is None
    assert shard.windows.state == b"{}"


def test_a_partial_failure_comes_with_a_state() -> None:
    """Failed items and state are read together; without the mapping's consent the items are ignored."""
    body = b'{"batchItemFailures":[{"itemIdentifier":2}],"state":{"n":1}}'
    for partial in (True, False):
        shard = Shard(partial=partial)
        shard.batcher.add(Records.of([record(1), record(2)]))
        batch = shard.batcher.take()
        outcome = shard.exchange.read(Delivered(body), batch)
        assert outcome == (PartlyFailed(frozenset({2})) if partial else Delivered(body))
        shard.windows.accept(batch.records[:1])
        assert shard.windows.state == b'{"n":1}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_any_json_object_is_a_state(state: dict[str, object], indent: int | None, ascii_only: bool) -> None:  # noqa: FBT001 - drawn
    """What the function gives is what it gets."""
    shard = Shard()
    shard.batcher.add(Records.of([record(1)]))
    text = json.dumps({"x": 1, "state": state}, indent=indent, ensure_ascii=ascii_only)
    batch = shard.batcher.take()
    assert isinstance(shard.exchange.read(Delivered(text.encode(errors="surrogatepass")), batch), Delivered)
    shard.windows.accept(batch.records)
    assert json.loads(shard.exchange.event(NO_RECORDS))["state"] == state


# Batches


def test_a_batch_ends_with_its_window() -> None:
    """The record of a later window waits for its own batch, behind the final call of the first window."""
    shard = Shard(batch_size=10)
    shard.batcher.add(Records.of([record(n, arrival_ms=n * 20_000) for n in range(5)]))
    assert shard.batcher.due_at() == -math.inf
    first = shard.batcher.take()
    assert [r.position for r in first.records] == [0, 1, 2]
    shard.accept(first, b'{"n":3}')
    final = shard.batcher.take()
    assert not final.records
    assert shard.exchange.name(final) == "final-2"
    shard.accept(final)
    assert [r.position for r in shard.batcher.take().records] == [3, 4]
    assert shard.windows.state == b"{}"


def test_an_open_window_is_due_when_it_is_over() -> None:
    """Before that only its records are; without an open window nothing is."""
    shard = Shard()
    assert shard.batcher.due_at() is None
    shard.batcher.add(Records.of([record(1)]))
    assert shard.batcher.due_at() == 300
    shard.accept(shard.batcher.take())
    shard.batcher.invoked(10)
    assert shard.batcher.due_at() == 1000
    shard.batcher.add(Records.of([record(2)]))
    assert shard.batcher.due_at() == 310
    shard.over_at = 5
    assert shard.batcher.due_at() == 5
    assert [r.position for r in shard.batcher.take().records] == [2]


def test_a_window_from_which_nothing_was_taken_needs_no_final_call() -> None:
    """Records given up do not open a window."""
    shard = Shard()
    shard.batcher.add(Records.of([record(1)]))
    shard.batcher.take()
    assert shard.batcher.due_at() is None


def test_a_large_state_ends_its_window_first() -> None:
    """More than 1 MB: the final call is owed at once, and the window goes on with an empty state."""
    shard = Shard(batch_size=1)
    shard.batcher.add(Records.of([record(1), record(2)]))
    large = b'{"a":"%b"}' % (b"." * MAX_STATE_BYTES)
    shard.accept(shard.batcher.take(), large[:6] + large[16:])
    assert shard.exchange.owed() is None
    shard.accept(shard.batcher.take(), large)
    owed = shard.exchange.owed()
    assert owed is not None
    assert owed == shard.batcher.take()
    event = json.loads(shard.exchange.event(NO_RECORDS))
    assert (event["isFinalInvokeForWindow"], event["isWindowTerminatedEarly"]) == (True, True)
    restored = Shard(stored=shard.windows.stored())
    assert not restored.batcher.take().records
    shard.accept(owed)
    assert shard.exchange.owed() is None
    shard.batcher.add(Records.of([record(3)]))
    shard.batcher.take()
    assert shard.windows.current == Window(0, 60)
    assert shard.windows.state == b"{}"


def test_records_and_any_allowed_state_fit_into_an_event() -> None:
    """A batch leaves room for the state to grow while parts of it are retried; a lone record needs only the present."""
    shard = Shard(batch_size=10)
    half = (MAX_EVENT_BYTES - MAX_STATE_BYTES) // 2 - 1000
    shard.batcher.add(Records.of([record(n, size=half) for n in range(3)]))
    assert len(shard.batcher.take().records) == 2
    alone = Shard()
    alone.batcher.add(Records.of([record(1, size=MAX_EVENT_BYTES - 1000)]))
    assert alone.batcher.take().size <= MAX_EVENT_BYTES


@given(
    st.lists(st.integers(0, 300_000), min_size=1, max_size=40),
    st.integers(1, 90),
    st.integers(1, 7),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.lists(st.sampled_from(["accept", "crash after", "crash before", "part"]), min_size=1, max_size=12),
)
def test_every_record_in_one_window_and_one_final_call(
    arrivals_ms: list[int], length_s: int, batch_size: int, chunks: list[int], course: list[str]
) -> None:
    """Whatever the chunks and wherever it is interrupted: in order, one final call per window, an unbroken state."""
    records = [record(n, arrival_ms=arrival_ms) for n, arrival_ms in enumerate(arrivals_ms)]
    finals: list[tuple[Window, list[int]]] = []
    shard = Shard(length_s=length_s, batch_size=batch_size)
    done = read = turn = 0
    while True:
        if read < len(records):
            step = chunks[turn % len(chunks)]
            shard.batcher.add(Records.of(records[read : read + step]))
            read += step
        if shard.batcher.due_at() is None:
            break
        batch = shard.batcher.take()
        happens = course[turn % len(course)] if turn < 60 else "accept"
        turn += 1
        current = shard.windows.current
        assert current is not None
        if happens == "crash before":
            shard = Shard(length_s=length_s, batch_size=batch_size, stored=shard.windows.stored())
            read = done
            continue
        taken = batch.records[: len(batch.records) // 2 + 1] if happens == "part" else batch.records
        seen = json.loads(shard.windows.state).get("seen", [])
        if batch.records:
            shard.accept(Batch(taken, 0), json.dumps({"seen": seen + [r.position for r in taken]}).encode())
            done = taken.positions[-1] + 1
        else:
            finals.append((current, seen))
            shard.accept(batch)
        if happens != "accept":  # the rest of the batch is read again
            shard = Shard(length_s=length_s, batch_size=batch_size, stored=shard.windows.stored())
            read = done
    assert [position for _, seen in finals for position in seen] == list(range(len(records)))
    starts = [window.start_s for window, _ in finals]
    assert starts == sorted(set(starts))
    for window, seen in finals:
        own = [records[position].arrival_ms // 1000 for position in seen]
        assert max(own) >= window.start_s
        assert max(own) < window.end_s
