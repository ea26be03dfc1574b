"""`make bench-compare BASE=COMMIT`: the same cases on another commit and on this tree, in turn.

    python -m benchmarks.compare BASE --case PREFIX… [--rounds N] [--seconds S]

Each round runs every case once on either, first the one, then the other, and every other round the other way round, so
that what disturbs the machine disturbs both. Ratios are taken within a round: above 1 this tree does more for a figure
that counts something a second, below 1 it takes less for one that counts time or memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.results import Figure, Row, table

_ROOT = Path(__file__).parent.parent
_ROUND_S = 3600.0

Figures = dict[tuple[str, str], float]


def compared(base: list[Figures], here: list[Figures]) -> list[Row]:
    """Return a row for each figure that both have in every round: the medians, and the ratios. Pure."""
    known = [key for key in here[0] if all(key in figures for figures in (*base, *here))]
    return [
        Row(
            f"{case}: {figure}",
            (
                Figure.of("base", "", [figures[case, figure] for figures in base]),
                Figure.of("here", "", [figures[case, figure] for figures in here]),
                Figure.of("ratio", "", _ratios(base, here, (case, figure))),
            ),
        )
        for case, figure in known
    ]


def _ratios(base: list[Figures], here: list[Figures], key: tuple[str, str]) -> list[float]:
    return [new[key] / old[key] if old[key] else 1.0 for old, new in zip(base, here, strict=True)]


def figures(document: Any) -> Figures:
    """Return the medians of a run's document. Pure."""
    return {
        (row["case"], name): figure["median"] for row in document["rows"] for name, figure in row["figures"].items()
    }


def _run(tree: Path, arguments: list[str], output: Path) -> Figures:
    command = [sys.executable, "-P", "-m", "benchmarks", "--rounds", "1", "--output", str(output), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=_ROUND_S)
    return figures(msgspec.json.decode(output.read_bytes()))


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="make bench-compare BASE=COMMIT ARGS=…", description="Before and after.")
    parser.add_argument("base", metavar="COMMIT", help="what to compare this tree with")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    asked, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="esmd-compare-") as folder:
        tree, output = Path(folder, "base"), Path(folder, "figures.json")
        git = ["git", "-C", str(_ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), asked.base], check=True)
        try:
            found: dict[Path, list[Figures]] = {tree: [], _ROOT: []}
            for number in range(asked.rounds):
                for where in (tree, _ROOT) if number % 2 == 0 else (_ROOT, tree):
                    print(f"round {number + 1}: {'base' if where == tree else 'here'}", file=sys.stderr, flush=True)
                    found[where].append(_run(where, others, output))
        except subprocess.CalledProcessError as exc:
            print(f"failed: {' '.join(exc.cmd)} ended with {exc.returncode}", file=sys.stderr)
            return 1
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    rows = compared(found[tree], found[_ROOT])
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
