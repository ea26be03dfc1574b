"""Judges what is promised about the messages of a queue: none deleted unprocessed, order per group, no two at once.

A standard queue promises no order. In a FIFO queue a group's messages come in order, and while a batch of the group is
with the function nobody else works on the group, unless the queue itself has given its messages to others because their
visibility ended.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from model.outcome import Delivered
from tests.simulation.calls import Line

if TYPE_CHECKING:
    from model.ids import ShardKey
    from model.lease import Lease
    from model.progress import ProgressUpdate, ShardProgress
    from tests.simulation.calls import Call, Entry, Written
    from tests.simulation.judge import Judge
    from tests.support.fake_sqs import FakeQueue


class QueueJudge:
    """`judge.RecordJudge` of one queue's mapping."""

    def __init__(self, judge: Judge, queue: FakeQueue) -> None:
        self.lines: dict[str, Line] = {}
        self.taken: Counter[str] = Counter()
        self.repeats = 0
        self._judge = judge
        self._queue = queue

    # The world

    def wrote(self, group: str) -> str:
        """Note a message that is to be sent; return its body."""
        return str(self.lines.setdefault(group, Line(group)).write())

    @property
    def owed(self) -> list[Written]:
        """What is not done."""
        return [record for line in self.lines.values() for record in line.records[line.owed_from :] if not record.done]

    @property
    def written(self) -> int:
        """Count the messages."""
        return sum(len(line.records) for line in self.lines.values())

    def deleting(self, receipt: str) -> None:
        """Judge a deletion: it comes only after the function took the message."""
        group, _, number = self._queue.stored[receipt.partition("#")[0]].body.rpartition(":")
        message = self.lines[group].records[int(number)]
        if not message.done:
            self._judge.wrong(f"lost: {message} is deleted, and is owed")

    # Calls

    def find(self, entry: Entry) -> Written:
        """Return what is known of a message."""
        group, number = entry.name
        return self.lines[group].records[number]

    def begins(self, call: Call) -> None:
        """Judge a call that begins: its messages are its caller's, and in a FIFO queue so are their groups."""
        for message, receipt in zip(call.records, call.receipts, strict=True):
            self.repeats += bool(message.done)
            if not self._is_current(receipt):
                self._judge.wrong(f"visibility: {call.caller} calls with {message}, which others have received since")
        if not self._queue.fifo:
            return
        reached = {message.line: message.line.owed_from for message in call.records}
        for message in call.records:
            line = message.line
            if message.number > reached[line]:
                self._judge.wrong(
                    f"order: {call.caller} calls with {message}, before {line.key}:{reached[line]} is done"
                )
            reached[line] = line.first_owed(max(reached[line], message.number + 1))
        for other in call.others():
            if any(self._is_current(receipt) for receipt in other.receipts):
                self._judge.wrong(
                    f"order: {call.caller} calls with {' '.join(map(str, call.records))}, while {other.caller} waits "
                    f"for {' '.join(map(str, other.records))}"
                )

    def _is_current(self, receipt: str) -> bool:
        """Tell whether nobody else has received the message since."""
        stored = self._queue.stored.get(receipt.partition("#")[0])
        return stored is not None and stored.receipt == receipt

    def carried_out(self, call: Call, taken: list[Written]) -> None:
        """Learn what the function took."""
        for message in taken:
            if not message.done:
                message.done = "delivered"
                self.taken["delivered"] += 1
                message.line.advance()

    def answered(self, call: Call) -> None:
        """Nothing is saved of a queue's messages."""
        assert call.outcome is not None
        self.taken[f"calls {'taken' if isinstance(call.outcome, Delivered) else 'not taken'}"] += 1

    # The store: a poller's progress is only its account

    def acquired(self, lease: Lease, progress: ShardProgress) -> None:
        """Nothing to judge."""

    def releasing(self, lease: Lease) -> None:
        """Nothing to judge."""

    def saved(self, update: ProgressUpdate) -> None:
        """Nothing to judge."""

    def creating(self) -> None:
        """Nothing to judge."""

    def wanted(self) -> None:
        """Nothing to judge."""

    def retired(self, shard: ShardKey) -> None:
        """Nothing to judge."""

    def moved(self, shard: ShardKey) -> None:
        """Never happens: a queue has no positions."""
        raise AssertionError(f"{shard} is moved")

    def forgotten(self) -> None:
        """Nothing to judge."""
