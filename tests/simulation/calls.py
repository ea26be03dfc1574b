"""What a function was called with: one call, from its beginning in a node to its end in the function and its answer."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model.ids import ShardKey
    from model.invocation import Invocation
    from model.outcome import Outcome


@dataclass(slots=True, eq=False)
class Line:
    """What is written under one ordering key, in order, and the calls about it that somebody waits for."""

    key: str
    records: list[Written] = field(default_factory=list)
    owed_from: int = 0  # number of the first record that is not done
    calls: list[Call] = field(default_factory=list)

    def write(self) -> Written:
        """Add a record."""
        self.records.append(Written(self, len(self.records)))
        return self.records[-1]

    def first_owed(self, number: int) -> int:
        """Return the number of the first record from `number` on that is not done."""
        while number < len(self.records) and self.records[number].done:
            number += 1
        return number

    def advance(self) -> None:
        """Pass over what is done."""
        self.owed_from = self.first_owed(self.owed_from)


@dataclass(slots=True, eq=False)
class Written:
    """One record of a stream, or message of a queue."""

    line: Line
    number: int
    shard: str = ""  # of a stream or topic
    sequence: int = 0  # in that
    done: str = ""  # what became of it in the end; empty: it is still owed
    was: str = ""  # the same before it was to be read again
    failures: int = 0  # function errors that count against the mapping's attempts
    cut_off: int = 0  # calls whose caller ended before it had an answer
    holder: int = 0  # token of the lease under which the following was counted
    failures_here: int = 0

    def __str__(self) -> str:
        return f"{self.line.key}:{self.number}"


@dataclass(slots=True, eq=False)
class Call:
    """One call. `holds` tells whether its caller believes in its lease now."""

    caller: str
    shard: ShardKey
    token: int
    records: list[Written]
    receipts: list[str]  # of a queue's messages
    began_at: float
    holds: Callable[[], bool]
    outcome: Outcome | None = None  # as the caller knows it

    def others(self) -> Iterator[Call]:
        """Go through the other calls about the same ordering keys that somebody waits for."""
        for line in dict.fromkeys(record.line for record in self.records):
            for other in line.calls:
                if other is not self:
                    yield other


class Entry(msgspec.Struct):
    """One record of an event, whatever its source."""

    class _Kinesis(msgspec.Struct):
        sequenceNumber: str  # noqa: N815 - AWS's names
        data: str

    kinesis: _Kinesis | None = None
    body: str = ""  # of a queue's message, as are these
    messageId: str = ""  # noqa: N815
    receiptHandle: str = ""  # noqa: N815
    value: str = ""  # of a topic's record, as are these
    topic: str = ""
    partition: int = 0
    offset: int = 0

    @property
    def name(self) -> tuple[str, int]:
        """The ordering key, and the number in it."""
        data = self.value if self.kinesis is None else self.kinesis.data
        text = base64.b64decode(data).decode() if data else self.body
        key, _, number = text.rpartition(":")
        return key, int(number)

    @property
    def item(self) -> str:
        """A name that no other record of the event has."""
        return str(self.identifier)

    @property
    def identifier(self) -> object:
        """What a partial batch response names it by."""
        if self.value:
            return {"partition": f"{self.topic}-{self.partition}", "offset": self.offset}
        return self.messageId if self.kinesis is None else self.kinesis.sequenceNumber


class _Event(msgspec.Struct):
    Records: list[Entry] = []
    records: dict[str, list[Entry]] = {}  # of a topic, by partition


_decode = msgspec.json.Decoder(_Event).decode


def entries(invocation: Invocation) -> list[Entry]:
    """Return the records of an event."""
    event = _decode(invocation.event)
    return [*event.Records, *(entry for found in event.records.values() for entry in found)]


class Watch(Protocol):
    """Who judges calls: `tests.simulation.judge`."""

    def find(self, invocation: Invocation, found: list[Entry]) -> list[Written]:
        """Return the records that a call is about."""

    def begins(self, call: Call) -> None:
        """Learn that a node calls."""

    def carried_out(self, call: Call, taken: list[Written]) -> None:
        """Learn what the function took of a call. It may end twice when the network delivers twice."""

    def answered(self, call: Call) -> None:
        """Learn that the caller has its answer."""

    def over(self, call: Call) -> None:
        """Learn that nobody waits for a call any more."""
