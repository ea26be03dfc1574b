"""What a function writes: lines for the node's log, the last 4 KB for the caller; bounded in memory, rate and work."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

TAIL_BYTES = 4096
"""How much of its log a caller may ask for (spec section 6.1)."""

LINES_PER_S, LINES_AT_ONCE = 100.0, 1000.0
"""What a function may write into the node's log; further lines are counted instead."""

LONGEST_LINE = 8192
_LOOKED_AT = 4 * LONGEST_LINE  # of what comes in a flood
_PIPE_BYTES = 1024 * 1024
_READ_BYTES = 1024 * 1024
_BURST_BYTES = 256 * 1024
_PAUSE_S = 0.002  # long enough for the pipe to fill again: a few large reads cost less than many small ones
_TELL_S = 10.0


class LineBudget:
    """A token bucket for the lines of a function, shared by its environments. Pure: `now` is event-loop time."""

    def __init__(self, *, per_s: float = LINES_PER_S, at_once: float = LINES_AT_ONCE) -> None:
        self._per_s = per_s
        self._most = at_once
        self._left = at_once
        self._at = 0.0
        self.dropped_lines = 0
        self.dropped_bytes = 0
        self._told_at = 0.0

    def take(self, now: float) -> bool:
        """Use up one line, if there is one."""
        self._left = min(self._left + (now - self._at) * self._per_s, self._most)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def drop(self, lines: int, size: int) -> None:
        """Count what is not shown."""
        self.dropped_lines += lines
        self.dropped_bytes += size

    def to_tell(self, now: float) -> tuple[int, int] | None:
        """Return what was dropped, lines and bytes, once in a while."""
        if not self.dropped_bytes or now - self._told_at < _TELL_S:
            return None
        self._told_at = now
        found = (self.dropped_lines, self.dropped_bytes)
        self.dropped_lines = self.dropped_bytes = 0
        return found


class FunctionLog:
    """The log of one environment. Text comes in through `feed`, platform lines through `platform_line`."""

    def __init__(self, function: str, budget: LineBudget, *, clock: Callable[[], float]) -> None:
        self._function = function
        self._budget = budget
        self._clock = clock
        self._request_id = ""
        self._tail = bytearray()
        self._partial = b""
        self.written_bytes = 0

    def begin(self, request_id: str) -> None:
        """Start the log of an invocation. What was written since the last one belongs to this one, as in AWS."""
        self._request_id = request_id

    def end(self) -> bytes:
        """Return the invocation's last 4 KB and begin anew."""
        self._flush()
        tail = bytes(self._tail)
        self._tail.clear()
        if told := self._budget.to_tell(self._clock()):
            log.warning("function.log_dropped", function=self._function, lines=told[0], bytes=told[1])
        return tail

    def platform_line(self, line: str, *, failed: bool = False) -> None:
        """Add a line of ours. What went well is told to those who debug: it comes with every invocation."""
        self._flush()
        self._keep(line.encode() + b"\n")
        if failed:
            self._show(line)
        else:
            log.debug("function.log", function=self._function, request_id=self._request_id, line=line)

    def feed(self, data: bytes) -> None:
        """Take what the function wrote."""
        self.written_bytes += len(data)
        self._keep(data)
        *lines, rest = (self._partial + data).split(b"\n") if len(data) < _PIPE_BYTES // 4 else self._many(data)
        for line in lines:
            self._show_bytes(line)
        self._partial = rest
        if len(rest) > LONGEST_LINE:
            self._show_bytes(rest)
            self._partial = b""

    def _many(self, data: bytes) -> list[bytes]:
        """Look at the beginning of a flood, and count the rest."""
        self._budget.drop(data.count(b"\n", _LOOKED_AT), len(data) - _LOOKED_AT)
        return [*(self._partial + data[:_LOOKED_AT]).split(b"\n"), b""]

    def _keep(self, data: bytes) -> None:
        self._tail += data[-TAIL_BYTES:]
        if len(self._tail) > TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    def _flush(self) -> None:
        if self._partial:
            partial, self._partial = self._partial, b""
            self._show_bytes(partial)

    def _show_bytes(self, line: bytes) -> None:
        if not line.strip():
            return
        if len(line) > LONGEST_LINE:
            self._budget.drop(0, len(line) - LONGEST_LINE)
            line = line[:LONGEST_LINE]
        self._show(line.decode(errors="replace"), size=len(line))

    def _show(self, line: str, *, size: int | None = None) -> None:
        if not self._budget.take(self._clock()):
            self._budget.drop(1, len(line) if size is None else size)
            return
        log.info("function.log", function=self._function, request_id=self._request_id, line=_printable(line))


def _printable(line: str) -> str:
    """Replace what terminals obey; blanks for what AWS's runtime clients put between and before a traceback's lines."""
    if line.isprintable():
        return line
    line = line.replace("\r", " ").replace("\xa0", " ")
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)


class LogPipe:
    """Reads the pipe that a sandbox's processes write to, and no faster than the node can stand.

    A flood is read on with pauses, so that its writer comes to an end and nobody else notices.
    """

    def __init__(self, descriptor: int, feed: Callable[[bytes], None]) -> None:
        self._descriptor: int | None = descriptor
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._burst = 0
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # beyond what this user may have: the usual size will do
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._loop.add_reader(descriptor, self._readable)

    def drain(self) -> None:
        """Read what is there now, within reason."""
        before = self._burst
        while self._burst - before < _PIPE_BYTES and self._read():
            pass

    def close(self) -> None:
        """Read what is left and stop. Safe to call twice."""
        if self._descriptor is None:
            return
        self.drain()
        self._ended()

    def _readable(self) -> None:
        self._read()
        if self._burst >= _BURST_BYTES and self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._pause = self._loop.call_later(_PAUSE_S, self._resume)
        elif self._pause is None:
            self._pause = self._loop.call_later(_PAUSE_S, self._calm)

    def _calm(self) -> None:
        self._burst, self._pause = 0, None

    def _resume(self) -> None:
        self._calm()
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._readable)

    def _read(self) -> bool:
        """Read once; tell whether there may be more."""
        if self._descriptor is None:
            return False
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._ended()
            return False
        self._burst += len(data)
        self._feed(data)
        return True

    def _ended(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
