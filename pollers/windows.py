"""The tumbling windows of one shard: which one a record belongs to, the state on its way through, the end (pure).

Windows are consecutive intervals over the arrival timestamps, counted from the epoch (spec section 5.4). A record that
comes late, with a time before the window now open, counts in the open one: records stay in their order, and a window
ends once. The event, the response and the batches are made in `pollers.windowed`; where the state is kept is
`pollers.standing`'s business.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from model.record import Records

GRACE_S = 120.0
"""How long a window waits, beyond its end, for a record of a later one."""

MAX_STATE_BYTES = 1024 * 1024
"""A larger state ends its window early."""

NO_STATE = b"{}"
_RECHECK_S = 5.0


class Window(NamedTuple):
    """Records that arrived from `start_s` on and before `end_s`, epoch seconds."""

    start_s: int
    end_s: int

    @classmethod
    def around(cls, at_s: int, length_s: int) -> Window:
        """Return the window that a moment lies in."""
        start_s = at_s - at_s % length_s
        return cls(start_s, start_s + length_s)

    def shown(self) -> dict[str, str]:
        """Return it as the event has it."""
        return {"start": _iso(self.start_s), "end": _iso(self.end_s)}


class StoredWindow(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of `Windows` that a restart must know. It belongs to the checkpoint it is saved with."""

    start_s: int  # of the open window; with none open, where the next may begin at the earliest
    end_s: int | None = None  # None: none is open
    last: str = ""  # position of the last record in the state; text, as sequence numbers are too large for JSON
    early: bool = False
    state: msgspec.Raw = msgspec.Raw(NO_STATE)


class Windows:
    """One shard's windows under one lease.

    The course of a window: `enter` before each batch of its records; `answer` with the state of a response, `accept`
    once records count as done by it, `close` after the final call. `accept` makes the window `open`: there is
    something in it for which a final call is owed.
    """

    def __init__(self, length_s: int, stored: StoredWindow | None = None) -> None:
        self._length_s = length_s
        self.current: Window | None = None  # of the batch in delivery; when open, the open one
        self.newest: Window | None = None  # of the last record read
        self.is_open = False
        self.is_early = False  # its state has grown too large: it ends before anything else happens
        self.last = ""
        self.state = NO_STATE
        self._answered = NO_STATE
        self._floor_s = 0  # the next window begins here at the earliest
        if stored is None:
            return
        self._floor_s = stored.start_s
        if stored.end_s is not None:
            self.current = self.newest = Window(stored.start_s, stored.end_s)
            self.is_open = True
            self.is_early = stored.early
            self.last = stored.last
            self.state = bytes(stored.state)

    def __repr__(self) -> str:
        return f"<Windows {self.current} {'open' if self.is_open else 'closed'}, state of {len(self.state)} bytes>"

    def forget(self) -> None:
        """Begin anew, without any window."""
        self.current = self.newest = None
        self.is_open = self.is_early = False
        self.state = NO_STATE
        self._floor_s = 0

    @property
    def open(self) -> Window | None:
        """The window for which a final call is owed."""
        return self.current if self.is_open else None

    def assign(self, arrival_ms: int) -> Window:
        """Return the window that the next record belongs to: its own, or a later one that has begun already."""
        at_s, newest = arrival_ms // 1000, self.newest
        if newest is None or at_s >= newest.end_s or newest.end_s <= self._floor_s:
            newest = self.newest = Window.around(max(at_s, self._floor_s), self._length_s)
        return newest

    def enter(self, window: Window) -> None:
        """Note whose records go to the function now."""
        self.current = window

    def answer(self, state: bytes) -> None:
        """Note the state in a response, until it is known whether it counts."""
        self._answered = state

    def accept(self, records: Records) -> None:
        """Take over the last answer's state: these records are done with it."""
        self.is_open = True
        self.last = str(records.positions[-1])
        self.state = self._answered
        self.is_early = len(self.state) > MAX_STATE_BYTES

    def close(self) -> None:
        """Drop the state: the final call is done. What follows an early end belongs to the same window again."""
        if self.current is not None:
            self._floor_s = self.current.start_s if self.is_early else self.current.end_s
        self.is_open = self.is_early = False
        self.state = NO_STATE

    def stored(self) -> StoredWindow:
        """Return what to save with the checkpoint."""
        if not self.is_open or self.current is None:
            return StoredWindow(self._floor_s)
        return StoredWindow(*self.current, self.last, self.is_early, msgspec.Raw(self.state))


def over_at(end_s: int, *, now: float, now_s: float, behind_s: float | None, settled_at: float) -> float:
    """Return when a window is over although no record of a later one shows up, as event-loop time.

    Over means that the shard was read up to a moment `GRACE_S` after the window's end, by a source that has answered
    without trouble since `settled_at` for as long. `now` is event-loop time and `now_s` epoch time; `behind_s` says how
    far the reading is behind the present, None when that is not known.
    """
    if behind_s is None:
        return now + _RECHECK_S
    due_at = max(now + (end_s + GRACE_S + behind_s - now_s), settled_at + GRACE_S)
    # Reading may catch up unnoticed, when everything is filtered out: look again.
    return min(due_at, now + _RECHECK_S) if behind_s and due_at > now else due_at


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
