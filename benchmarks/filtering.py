"""How many records a filter judges per second of CPU: `python -m benchmarks.filtering`.

Records are JSON objects of 500 bytes, as they come from a source. The target is 300,000 per CPU-second for equality
on a single field.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from model.mapping import SourceKind
from pollers.filtering import compile_filter

if TYPE_CHECKING:
    from collections.abc import Mapping

CASES = {
    "equality on one field": ['{"value": {"type": ["click"]}}'],
    "equality on one nested field": ['{"value": {"user": {"country": ["NZ", "AU"]}}}'],
    "equality, two patterns": ['{"value": {"type": ["click"]}}', '{"value": {"user": {"country": ["DE"]}}}'],
    "two fields of an array's element": ['{"value": {"items": {"sku": ["B7"], "quantity": [1]}}}'],
    "numeric and wildcard": [
        '{"value": {"price": [{"numeric": [">", 10, "<", 20]}], "url": [{"wildcard": "https://*.com/*"}]}}'
    ],
    "metadata only": ['{"topic": ["clicks"]}'],
}


class BytesView:
    """Records that are just their data."""

    kind = SourceKind.KAFKA

    def data(self, raw: bytes) -> bytes:
        """Return the record."""
        return raw

    def metadata(self, _raw: bytes) -> Mapping[str, object]:
        """Return what all records share."""
        return {"topic": "clicks", "partition": 0}


def records(count: int = 1000) -> list[bytes]:
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


def per_cpu_second(patterns: list[str], raws: list[bytes], *, rounds: int = 5, repeats: int = 40) -> float:
    """Measure the best of some rounds."""
    judge = compile_filter(patterns, BytesView())
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(repeats):
            judge.keep(raws)
        best = min(best, time.process_time() - started)
    return repeats * len(raws) / best


def main() -> None:
    """Print a line per case."""
    raws = records()
    for name, patterns in CASES.items():
        print(f"{name:36}{per_cpu_second(patterns, raws):12,.0f} records per CPU-second")


if __name__ == "__main__":
    main()
