"""How many records a filter judges per second of CPU: bytes in, keep or drop out, parsing included.

Records are JSON objects of 500 bytes, as they come from a source. The target is 300,000 per CPU-second for equality
on a single field. `python -m benchmarks --case filter` prints the table; there is no node and no server in it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.results import Figure, Row
from model.mapping import SourceKind
from pollers.filtering import compile_filter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.bench import Bench

_RECORDS = 1000
_REPEATS = 40  # of all records in one round: some tens of milliseconds

PATTERNS = {
    "filter-equality": ['{"value": {"type": ["click"]}}'],
    "filter-nested": ['{"value": {"user": {"country": ["NZ", "AU"]}}}'],
    "filter-two-patterns": ['{"value": {"type": ["click"]}}', '{"value": {"user": {"country": ["DE"]}}}'],
    "filter-array": ['{"value": {"items": {"sku": ["B7"], "quantity": [1]}}}'],
    "filter-operators": [
        '{"value": {"price": [{"numeric": [">", 10, "<", 20]}], "url": [{"wildcard": "https://*.com/*"}]}}'
    ],
    "filter-metadata": ['{"topic": ["clicks"]}'],
}


class BytesView:
    """Records that are just their data."""

    kind = SourceKind.KAFKA

    def payloads(self, raws: Sequence[bytes]) -> Sequence[bytes]:
        """Return the records."""
        return raws

    def metadata(self, _raw: bytes) -> Mapping[str, object]:
        """Return what all records share."""
        return {"topic": "clicks", "partition": 0}


def records(count: int = _RECORDS) -> list[bytes]:
    """Make records of 500 bytes, half of them clicks."""
    made = []
    for number in range(count):
        event = {
            "id": f"{number:036}",
            "type": ("click", "view")[number % 2],
            "user": {"id": 10_000 + number, "name": "Jane Doe", "country": "NZ"},
            "price": 12.5,
            "items": [{"sku": "A1", "quantity": 2}, {"sku": "B7", "quantity": 1}],
            "time": "2024-01-01T00:00:00Z",
            "tags": ["a", "b", "c"],
            "url": "https://example.com/path?x=1",
            "note": "",
        }
        event["note"] = "x" * (500 - len(json.dumps(event)))
        made.append(json.dumps(event).encode())
    return made


@dataclass(frozen=True, slots=True)
class Filtering:
    """A filter alone. `benchmarks.bench.Case`."""

    name: str
    patterns: Sequence[str]

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure."""
        bench.say(self.name)
        raws = records()
        judge = compile_filter(self.patterns, BytesView())
        judge.keep(raws)
        repeats = 1 if bench.options.quick else _REPEATS
        rates = []
        for _ in range(bench.options.rounds):
            began_s = time.process_time()
            for _ in range(repeats):
                judge.keep(raws)
            rates.append(repeats * len(raws) / (time.process_time() - began_s))
        yield Row(self.name, (Figure.of("judged/CPU-s", "1/s", rates),))


def cases() -> Iterable[Filtering]:
    """Return a case for each kind of pattern."""
    return [Filtering(name, patterns) for name, patterns in PATTERNS.items()]
