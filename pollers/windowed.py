"""Tumbling windows on a lane: batches within one window, final calls, events with a state, answers with one (pure).

A final call travels like a batch, without records, so that retries, backoff, draining and the account treat it as they
treat any other. `pollers.windows` knows the windows; this module joins them to batcher and delivery.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from model.mapping import KinesisSource
from model.record import MAX_EVENT_BYTES, NO_RECORDS, Batch
from pollers.partial import UnreadableError, named_items, outcome_of, unreadable
from pollers.windows import MAX_STATE_BYTES, NO_STATE, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from model.ids import ShardId
    from model.mapping import EventSource
    from model.outcome import Delivered, Outcome
    from model.record import Records
    from pollers.batcher import Batcher
    from pollers.ports import Envelope
    from pollers.windows import Windows

_SHOWN = 80


class _Answer(msgspec.Struct):
    state: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    batchItemFailures: Any = None  # noqa: N815  # AWS's name


class WindowedExchange:
    """Events that carry the window and its state. `pollers.delivery.Exchange`."""

    def __init__(
        self,
        envelope: Envelope,
        windows: Windows,
        source: EventSource,
        shard: ShardId,
        *,
        partial_responses: bool,
    ) -> None:
        self._envelope = envelope
        self._windows = windows
        self._shard = shard
        consumer = source.consumer_arn if isinstance(source, KinesisSource) else None
        self._source_arn = consumer or getattr(source, "arn", None) or ""
        self._partial_responses = partial_responses
        shown = self._extra(Window(0, 1), NO_STATE, final=False, early=False)
        self._fixed = envelope.overhead() + len(shown) - 1 - len(NO_STATE)  # one brace is shared
        self.reserve = self._fixed + MAX_STATE_BYTES

    def overhead(self) -> int:
        """Bytes of an event beyond its records, with the present state."""
        return self._fixed + len(self._windows.state)

    def event(self, records: Records) -> bytes:
        """Assemble the event of a window's next records, or of its final call when there are none."""
        windows = self._windows
        if windows.current is None:
            raise RuntimeError("no window was entered")
        event = self._envelope.event(records)
        final = not records
        extra = self._extra(windows.current, windows.state, final=final, early=final and windows.is_early)
        return b",".join((memoryview(event)[:-1], memoryview(extra)[1:]))

    def _extra(self, window: Window, state: bytes, *, final: bool, early: bool) -> bytes:
        return msgspec.json.encode(
            {
                "window": window.shown(),
                "state": msgspec.Raw(state),
                "shardId": self._shard,
                "eventSourceARN": self._source_arn,
                "isFinalInvokeForWindow": final,
                "isWindowTerminatedEarly": early,
            }
        )

    def name(self, batch: Batch) -> str:
        """Name a batch by its records, and a final call by the last record that it speaks for."""
        if batch.records:
            return batch.records.span
        return f"final-{self._windows.last}"

    def read(self, answered: Delivered, batch: Batch) -> Outcome:
        """Read the state, which must be there, and the failed items where the mapping asks for them."""
        try:
            state, failures = _read(answered.body, MAX_EVENT_BYTES - self._fixed)
            item_ids, parse = batch.records.item_ids, self._envelope.parse_item_id
            failed = named_items(failures, item_ids, parse) if self._partial_responses else None
        except UnreadableError as exc:
            return unreadable(answered, f"invalid response for a tumbling window: {exc}")
        self._windows.answer(state)
        return outcome_of(answered, failed) if failed else answered

    def owed(self) -> Batch | None:
        """Return the final call of a window whose state has grown too large; nothing else may come before it."""
        return Batch(NO_RECORDS, self.overhead()) if self._windows.is_early else None


def _read(body: bytes, max_state_bytes: int) -> tuple[bytes, Any]:
    try:
        if not body.isascii():
            body.decode()  # the state is passed on as it is written, and only skipped over here
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.ValidationError as exc:
        raise UnreadableError("the body is not a JSON object") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UnreadableError("the body is not JSON") from exc
    if isinstance(answer.state, msgspec.UnsetType):
        raise UnreadableError("no state")
    state = bytes(answer.state)
    if not state.startswith(b"{"):
        raise UnreadableError(f"state is not an object: {state[:_SHOWN].decode(errors='replace')}")
    if len(state) > max_state_bytes:
        raise UnreadableError(f"a state of {len(state)} bytes fits into no event")
    return state, answer.batchItemFailures


class WindowedBatcher:
    """Close batches also at the boundaries of windows, and put a final call behind each window's last batch.

    `over_at` tells, for a window's end, when it is over though nothing follows (event-loop time).
    `pollers.lane.Batches`.
    """

    def __init__(
        self, batcher: Batcher, windows: Windows, exchange: WindowedExchange, *, over_at: Callable[[int], float]
    ) -> None:
        self._batcher = batcher  # its overhead is the exchange's `reserve`
        self._windows = windows
        self._exchange = exchange
        self._over_at = over_at
        self._runs: deque[tuple[Window, int]] = deque()  # windows of the waiting records, and how many of each

    def __len__(self) -> int:
        return len(self._batcher)

    @property
    def held_bytes(self) -> int:
        """Bytes of the records waiting."""
        return self._batcher.held_bytes

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the first waiting record, epoch milliseconds."""
        return self._batcher.oldest_ms

    @property
    def missing(self) -> int:
        """Records until the last batch that waits is full, if no window ends before."""
        return self._batcher.missing

    def add(self, records: Records) -> None:
        """Take records, in order, behind those already waiting."""
        self._batcher.add(records)
        runs, assign = self._runs, self._windows.assign
        window, count = runs.pop() if runs else (None, 0)
        for arrival_ms in records.arrivals_ms:
            belongs = assign(arrival_ms)
            if belongs != window:
                if window is not None:
                    runs.append((window, count))
                window, count = belongs, 0
            count += 1
        if window is not None:
            runs.append((window, count))

    def withdraw(self, key: Hashable) -> Records:
        """Refuse: a window's state passes through all its records, so no key can be set apart (`model.rules`)."""
        raise RuntimeError(f"key {key!r} cannot be parked: the mapping has tumbling windows")

    def due_at(self) -> float | None:
        """When the next batch or final call must go; None when there is neither record nor open window."""
        open_window, runs = self._windows.open, self._runs
        if self._final_is_due() or len(runs) > 1:
            return -math.inf  # a record of a later window is here
        waiting_at = self._batcher.due_at()
        if open_window is None:
            return waiting_at
        over_at = self._over_at(open_window.end_s)
        return over_at if waiting_at is None else min(waiting_at, over_at)

    def take(self) -> Batch:
        """Close the batch at the head; one without records is the open window's final call.

        Raises IndexError when there is neither record nor open window.
        """
        windows, runs = self._windows, self._runs
        if self._final_is_due() or (windows.is_open and not runs):
            return Batch(NO_RECORDS, self._exchange.overhead())
        window, count = runs[0]
        windows.enter(window)
        batch = self._batcher.take(at_most=count)
        left = count - len(batch.records)
        if left:
            runs[0] = (window, left)
        else:
            runs.popleft()
        # The limit kept room for any state; the size tells what the event really has.
        return Batch(batch.records, batch.size - self._exchange.reserve + self._exchange.overhead())

    def invoked(self, now: float) -> None:
        """Begin the next batching window: an invocation has ended."""
        self._batcher.invoked(now)

    def _final_is_due(self) -> bool:
        """Whether the open window must end before anything else."""
        windows = self._windows
        return windows.is_open and (windows.is_early or bool(self._runs and self._runs[0][0] != windows.current))
