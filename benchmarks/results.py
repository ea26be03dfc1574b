"""What a benchmark found: figures with their spread, as a table for people and as JSON. Pure but for `write`."""

from __future__ import annotations

import datetime as dt
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure of a case: the median of its rounds, and the lowest and highest of them."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, name: str, unit: str, values: Sequence[float]) -> Figure:
        """Take the rounds' values; at least one."""
        return cls(name, unit, statistics.median(values), min(values), max(values), len(values))

    def shown(self) -> str:
        """Return the median, with the spread where there was more than one round."""
        unit = "" if self.unit in {"", "1/s"} else f" {self.unit}"
        if self.rounds == 1:
            return f"{_number(self.median)}{unit}"
        return f"{_number(self.median)}{unit} ({_number(self.low)}-{_number(self.high)})"


@dataclass(frozen=True, slots=True)
class Row:
    """A case and its figures; without any, the reason why it was left out."""

    case: str
    figures: tuple[Figure, ...]
    left_out: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all are not above. Needs one value."""
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, min(len(ordered) - 1, int(rank) - 1))]


def table(rows: Iterable[Row]) -> str:
    """Return the rows as text: one table for all rows that have the same figures, then what was left out."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    left_out: list[str] = []
    for row in rows:
        if row.left_out:
            left_out.append(f"left out: {row.case}: {row.left_out}")
        else:
            groups.setdefault(tuple(figure.name for figure in row.figures), []).append(row)
    tables = [_table(names, group) for names, group in groups.items()]
    return "\n\n".join([*tables, *(["\n".join(left_out)] if left_out else [])])


def _table(names: tuple[str, ...], rows: Sequence[Row]) -> str:
    lines = [["case", *names], *([row.case, *(figure.shown() for figure in row.figures)] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
    texts = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([texts[0], "  ".join("-" * width for width in widths), *texts[1:]])


def write(
    path: Path, rows: Sequence[Row], *, machine: Mapping[str, str | int | bool], options: Mapping[str, object]
) -> None:
    """Write everything as one JSON document."""
    document = {
        "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "options": options,
        "rows": [
            {
                "case": row.case,
                "figures": {
                    figure.name: {
                        "unit": figure.unit, "median": figure.median, "low": figure.low, "high": figure.high,
                        "rounds": figure.rounds,
                    }
                    for figure in row.figures
                },
                **({"left_out": row.left_out} if row.left_out else {}),
            }
            for row in rows
        ],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"
