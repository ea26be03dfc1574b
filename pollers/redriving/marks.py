"""How far a redrive got in one partition of a topic, as the offset and the text of a group's commit say it. Pure.

The committed offset is that of the first message that is not done. The text names what else is not done, up to where
reading was: `NEXT` or `NEXT:STEP,STEP…`, each step from one such message to the next. So what fails in the middle
stays, and what follows it is not delivered again by the next redrive. A text has a limit; what does not fit is read,
and delivered, again.
"""

from __future__ import annotations

from bisect import bisect_left

MAX_TEXT = 4000
"""The broker's own limit is 4,096 bytes unless it is configured."""


class Marks:
    """Which messages of a partition are not done. Offsets before `begin` do not exist any more."""

    def __init__(self, committed: tuple[int, str] | None, *, begin: int, end: int) -> None:
        self._open: list[int] = []  # read and not done, rising
        self._next = begin  # everything from here on is not read
        if committed is not None and committed[0] <= end:  # else: never redriven, or the topic was made anew
            offset, text = committed
            self._next = max(begin, offset)
            if text:
                self._take_up(offset, text, begin)
        self._looked = self.first  # this redrive has seen everything before

    def _take_up(self, offset: int, text: str, begin: int) -> None:
        next_text, _, steps = text.partition(":")
        try:
            reached = int(next_text)
            opened = [offset]
            for step in filter(None, steps.split(",")):
                opened.append(opened[-1] + int(step))
        except ValueError:
            return  # somebody else's commit
        if reached > offset and opened[-1] < reached and opened == sorted(set(opened)):
            self._open = [one for one in opened if one >= begin]
            self._next = max(begin, reached)

    @property
    def first(self) -> int:
        """Where to read from."""
        return self._open[0] if self._open else self._next

    def to_do(self, end: int) -> int:
        """Count the offsets before `end` that are not done."""
        return bisect_left(self._open, end) + max(0, end - self._next)

    def take(self, offset: int) -> bool:
        """Learn that a message was read; tell whether it is to be delivered. Call it in the order of offsets.

        Open ones that should have come before and did not are gone: deleted by their topic's compaction.
        """
        del self._open[bisect_left(self._open, self._looked) : bisect_left(self._open, offset)]
        self._looked = offset + 1
        if offset >= self._next:
            self._next = offset + 1
            self._open.append(offset)
            return True
        at = bisect_left(self._open, offset)
        return at < len(self._open) and self._open[at] == offset

    def done(self, offset: int) -> None:
        """Learn that a message is done."""
        at = bisect_left(self._open, offset)
        if at < len(self._open) and self._open[at] == offset:
            del self._open[at]

    def commit(self) -> tuple[int, str]:
        """Return what to commit."""
        if not self._open:
            return self._next, ""
        steps: list[str] = []
        size, reached = len(str(self._next)) + 1, self._next
        for before, after in zip(self._open, self._open[1:], strict=False):
            step = str(after - before)
            size += len(step) + 1
            if size > MAX_TEXT:
                reached = after  # from here on all of it is read again
                break
            steps.append(step)
        return self._open[0], f"{reached}:{','.join(steps)}"
