"""Judges the log of a target: was anything lost, out of order, or delivered by somebody who had lost the lease? Pure.

The log is what `tests.support.recording_target` writes: one line per invocation, in the order in which the target
answered. Only answers without an error count as deliveries. At least once is the promise, so repeats are counted, and
refused only where they go back further than the place a lease began at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

OK, FAILED, THROTTLED = "ok", "failed", "throttled"
_SHOWN = 5  # findings of one kind that are spelled out


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One record of an invocation."""

    topic: str
    partition: int
    offset: int
    key: str | None = None  # base64, as in the event


class Invoked(msgspec.Struct, frozen=True):
    """One line of the log."""

    started: float  # epoch seconds of the target
    ended: float
    mapping: str
    shard: str
    token: int
    batch: str
    attempt: int
    outcome: str
    records: list[Entry] = []


def read_log(path: Path) -> list[Invoked]:
    """Read a log. A last line without its end is what a killed target leaves, and is passed over."""
    lines = path.read_bytes().split(b"\n")
    decoder = msgspec.json.Decoder(Invoked)
    return [decoder.decode(line) for line in lines[:-1]]


@dataclass
class Verdict:
    """What was found. Each text names the place."""

    lost: list[str] = field(default_factory=list)  # expected and never delivered
    unexpected: list[str] = field(default_factory=list)  # delivered and not expected
    disordered: list[str] = field(default_factory=list)  # delivered after a later record of the same ordering key
    rewound: list[str] = field(default_factory=list)  # repeated from before the place where the lease began
    zombies: list[str] = field(default_factory=list)  # delivered under a token older than one already seen
    overlapping: list[str] = field(default_factory=list)  # two invocations of one ordering key at the same time
    delivered: int = 0  # distinct records
    duplicates: int = 0  # deliveries beyond the first of each record
    repeated_by_holder: int = 0  # of these, under a token that had delivered the record before: an answer was lost

    def problems(self) -> list[str]:
        """Everything that breaks a promise; empty for a clean history. Duplicates are no problem by themselves."""
        kinds = ("lost", "unexpected", "disordered", "rewound", "zombies", "overlapping")
        found: list[str] = []
        for kind in kinds:
            texts: list[str] = getattr(self, kind)
            found += [f"{kind}: {text}" for text in texts[:_SHOWN]]
            if len(texts) > _SHOWN:
                found.append(f"{kind}: and {len(texts) - _SHOWN} more")
        return found


def check(
    log: Iterable[Invoked],
    expected: Mapping[Partition, AbstractSet[int] | range],
    *,
    began_at: Mapping[tuple[str, int], int] | None = None,
    by_key: bool = False,
    overlaps: bool = False,
    unbroken: bool = False,
) -> Verdict:
    """Judge a log against the offsets that had to be delivered.

    `began_at`: for (shard, token) the checkpoint its holder began at; nothing before it may be repeated under that
    token. `by_key`: order is promised per record key, not per partition. `overlaps`: also look for invocations of one
    ordering key that ran at the same time under the same token (a killed node's last one may run into its successor's).
    `unbroken`: a delivered record is followed by the next one or by an earlier one, so that a repeat goes on without
    gaps up to where it was; true of sources without holes in their offsets, read by one lane.
    """
    return _Checker(began_at or {}, by_key=by_key, overlaps=overlaps, unbroken=unbroken).run(log, expected)


class _Checker:
    def __init__(
        self, began_at: Mapping[tuple[str, int], int], *, by_key: bool, overlaps: bool, unbroken: bool
    ) -> None:
        self._began_at = began_at
        self._unbroken = unbroken
        self._last: dict[Partition, int] = {}
        self._by_key = by_key
        self._overlaps = overlaps
        self._verdict = Verdict()
        self._newest_token: dict[str, int] = {}
        self._seen: dict[Partition, set[int]] = {}
        self._high: dict[tuple[Partition, str | None], int] = {}  # highest offset delivered, per ordering key
        self._seen_under: dict[tuple[Partition, int], set[int]] = {}  # the same per token
        self._high_under: dict[tuple[Partition, str | None, int], int] = {}
        self._busy: dict[tuple[Partition, str | None, int], tuple[float, str]] = {}

    def run(self, log: Iterable[Invoked], expected: Mapping[Partition, AbstractSet[int] | range]) -> Verdict:
        for invoked in log:
            if self._overlaps:
                self._look_for_overlaps(invoked)
            if invoked.outcome == OK:
                self._delivered(invoked)
        self._compare(expected)
        return self._verdict

    def _delivered(self, invoked: Invoked) -> None:
        newest = self._newest_token.get(invoked.shard, invoked.token)
        if invoked.token < newest:
            self._verdict.zombies.append(
                f"{invoked.shard}: token {invoked.token} after {newest}, batch {invoked.batch}"
            )
        self._newest_token[invoked.shard] = max(newest, invoked.token)
        inside: dict[tuple[Partition, str | None], int] = {}
        for entry in invoked.records:
            order = (Partition(entry.topic, entry.partition), entry.key if self._by_key else None)
            if entry.offset <= inside.get(order, -1):
                place = f"{entry.topic}-{entry.partition}@{entry.offset}"
                self._verdict.disordered.append(f"{place}: after {inside[order]} inside batch {invoked.batch}")
            inside[order] = entry.offset
            self._record(invoked, entry)

    def _record(self, invoked: Invoked, entry: Entry) -> None:
        partition = Partition(entry.topic, entry.partition)
        place = f"{entry.topic}-{entry.partition}@{entry.offset}"
        key = entry.key if self._by_key else None
        last, self._last[partition] = self._last.get(partition, -1), entry.offset
        if self._unbroken and entry.offset > last + 1:
            self._verdict.disordered.append(f"{place}: right after {last}, token {invoked.token}")
        seen = self._seen.setdefault(partition, set())
        seen_under = self._seen_under.setdefault((partition, invoked.token), set())
        high = self._high.get((partition, key), -1)
        high_under = self._high_under.get((partition, key, invoked.token), -1)
        if entry.offset not in seen and entry.offset < high:
            self._verdict.disordered.append(f"{place}: first delivered after {high}")
        elif entry.offset not in seen_under and entry.offset < high_under:
            self._verdict.disordered.append(f"{place}: repeated after {high_under}, token {invoked.token}")
        if entry.offset in seen:
            self._verdict.duplicates += 1
            self._verdict.repeated_by_holder += entry.offset in seen_under
            start = self._began_at.get((invoked.shard, invoked.token))
            if start is not None and entry.offset < start:
                self._verdict.rewound.append(f"{place}: token {invoked.token} began at {start}")
        seen.add(entry.offset)
        seen_under.add(entry.offset)
        self._high[(partition, key)] = max(high, entry.offset)
        self._high_under[(partition, key, invoked.token)] = max(high_under, entry.offset)

    def _look_for_overlaps(self, invoked: Invoked) -> None:
        for order in {
            (Partition(e.topic, e.partition), e.key if self._by_key else None, invoked.token) for e in invoked.records
        }:
            ended, batch = self._busy.get(order, (0.0, ""))
            if invoked.started < ended:
                self._verdict.overlapping.append(
                    f"{order[0].topic}-{order[0].number}: batches {batch}, {invoked.batch}"
                )
            self._busy[order] = (max(ended, invoked.ended), invoked.batch)

    def _compare(self, expected: Mapping[Partition, AbstractSet[int] | range]) -> None:
        for partition, offsets in expected.items():
            seen = self._seen.get(partition, set())
            name = f"{partition.topic}-{partition.number}"
            self._verdict.lost += [f"{name}@{offset}" for offset in sorted(set(offsets) - seen)]
            self._verdict.unexpected += [f"{name}@{offset}" for offset in sorted(seen - set(offsets))]
        for partition in self._seen.keys() - expected.keys():
            self._verdict.unexpected.append(f"{partition.topic}-{partition.number}: the whole partition")
        self._verdict.delivered = sum(len(seen) for seen in self._seen.values())
