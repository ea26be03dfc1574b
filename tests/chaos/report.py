"""A run in figures: as a table for people, as a document for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.chaos.plan import TTL_S, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.chaos.judging import Judgement

TAKE_OVER_S = TTL_S + 1  # asked, of every shard
HAND_OVER_S = 0.25  # asked, of the median


@dataclass
class Report:
    """What a run has shown."""

    seed: int
    seconds: float
    faults: int
    folder: Path
    sources: list[str]
    judgement: Judgement
    problems: list[str] = field(default_factory=list)  # beyond the judgement's

    @property
    def all_problems(self) -> list[str]:
        """Every broken promise."""
        return [*self.judgement.problems, *self.problems]

    def moves(self) -> list[tuple[str, list[float], str]]:
        """Return the name, the seconds and what is asked of each kind of move."""
        taken, handed = self.judgement.take_overs, self.judgement.hand_overs
        return [
            ("take-over after kill -9: lease", [t.lease_s for t in taken], f"max {TAKE_OVER_S:g}"),
            ("take-over after kill -9: first invocation", [t.invoked_s for t in taken if t.invoked_s is not None], ""),
            ("hand-over in rolling restart: lease", [h.lease_s for h in handed], f"median {HAND_OVER_S:g}"),
            ("hand-over in rolling restart: idle", [h.idle_s for h in handed if h.idle_s is not None], ""),
        ]

    def document(self) -> dict[str, Any]:
        """Return the run as JSON has it."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "faults": self.faults,
            "delivered": self.judgement.delivered,
            "moves_s": {
                name: {"count": len(found), "median": round(median(found), 3), "max": round(max(found), 3)}
                for name, found, _ in self.moves()
                if found
            },
            "duplicates": {
                kind.name.lower(): {source: self.judgement.duplicates[kind, source] for source in self.sources}
                for kind in Kind
            },
            "problems": self.all_problems,
        }

    def table(self) -> str:
        """Return the run as people read it."""
        judged = self.judgement
        happened = f"{judged.delivered} records in {judged.invocations} invocations"
        lines = [f"seed {self.seed}, {self.seconds:g} s, {self.faults} faults, {happened}", ""]
        lines.append(_row("seconds", ["count", "median", "max", "asked"]))
        for name, found, asked in self.moves():
            figures = [f"{median(found):.2f}", f"{max(found):.2f}"] if found else ["-", "-"]
            lines.append(_row(name, [str(len(found)), *figures, asked]))
        lines += ["", _row("duplicates (allowed)", self.sources)]
        for kind in Kind:
            costs = [
                f"{self.judgement.duplicates[kind, source]} ({self.judgement.allowed[kind, source]})"
                for source in self.sources
            ]
            lines.append(_row(kind, costs))
        lines += ["", *(f"PROBLEM {problem}" for problem in self.all_problems)]
        if self.all_problems:
            lines.append(
                f'again: make chaos ARGS="--seconds {self.seconds:g} --seed {self.seed}"; history: {self.folder}'
            )
        else:
            lines.append("nothing lost, nothing out of order, every repeat explained, the ledgers balance")
        return "\n".join(lines)


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:<44}" + "".join(f"{cell:>13}" for cell in cells)
