"""Run simulated worlds: `python -m tests.simulation --seeds 0-999`; `make sim SEEDS=0-999` does the same.

A world is a function of its seed. One that breaks a promise prints the command that runs it again and tells its story.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation.plan import SCENARIOS, draw
from tests.simulation.plants import PLANTS
from tests.simulation.running import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.plan import Plan
    from tests.simulation.running import Verdict

_HASH_SEED = "0"
_SHOWN = 5  # problems of one world
_TOLD_EVERY = 500


def main(arguments: list[str]) -> int:
    """Run what is asked for; return the exit status: 1 when a world broke a promise, or a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default="0-1999", help="a range, or one seed: its story is told")
    parser.add_argument("--scenario", choices=SCENARIOS, default="any", help="what the worlds are like")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worlds at the same time")
    parser.add_argument("--plant", choices=PLANTS, help="with this bug planted; stop at the first world that shows it")
    chosen = parser.parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != _HASH_SEED:
        # Sets of text are gone through in an order that differs in each process: only so a run is repeatable.
        command = [sys.executable, "-m", "tests.simulation", *arguments]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": _HASH_SEED})  # noqa: S606 - itself
    if chosen.plant is not None:
        return _hunt(chosen.plant, chosen.seeds)
    if len(chosen.seeds) == 1:
        return _tell(SCENARIOS[chosen.scenario](chosen.seeds[0]))
    return _run_many(chosen.scenario, chosen.seeds, chosen.jobs)


def _seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    return range(int(first), int(last if dash else first) + 1)


def _tell(plan: Plan) -> int:
    verdict = run(plan)
    _say(plan, *verdict.story, *verdict.problems[:_SHOWN])
    _say(
        f"{verdict.written} records, {verdict.calls} calls, {verdict.repeats} records repeated, "
        f"calm {verdict.calm_after_s:.1f} s after the last trouble, digest {verdict.digest:08x}"
    )
    return bool(verdict.problems)


def _run_many(scenario: str, seeds: range, jobs: int) -> int:
    began = time.perf_counter()
    failed = records = calls = 0
    befell: Counter[str] = Counter()
    again = "" if scenario == "any" else f" ARGS='--scenario \"{scenario}\"'"
    for done, (seed, verdict) in enumerate(_each(scenario, seeds, jobs), start=1):
        records += verdict.written
        calls += verdict.calls
        befell += verdict.befell
        if verdict.problems:
            failed += 1
            _say(f"seed {seed}: {verdict.problems[0]}", f"    again: make sim SEEDS={seed}{again}")
        if done % _TOLD_EVERY == 0:
            _say(f"{done} worlds, {failed} failed")
    _say("what befell them:", *(f"    {kind}: {count}" for kind, count in sorted(befell.items())))
    took_s = time.perf_counter() - began
    _say(f"{len(seeds)} worlds in {took_s:.0f} s, {records} records, {calls} calls, {failed} failed")
    return bool(failed)


def _each(scenario: str, seeds: range, jobs: int) -> Iterator[tuple[int, Verdict]]:
    work = [(scenario, seed) for seed in seeds]
    if jobs == 1:
        yield from map(_run_one, work)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_run_one, work, chunksize=max(1, min(8, len(work) // (4 * jobs))))


def _run_one(work: tuple[str, int]) -> tuple[int, Verdict]:
    scenario, seed = work
    return seed, run(SCENARIOS[scenario](seed))


def _hunt(name: str, seeds: range) -> int:
    """Look for a planted bug: a world that shows it, and is sound without. Where it was found before comes first."""
    known = PLANTS[name].shown_by
    for count, seed in enumerate(sorted(seeds, key=lambda seed: abs(seed - known)), start=1):
        with PLANTS[name].planted():
            problems = run(draw(seed)).problems
        if problems:
            sound = not run(draw(seed)).problems
            _say(f"{name}: found by seed {seed}, tried {count}: {problems[0]}")
            if not sound:
                _say("and without the bug that world is not sound either")
            return 0 if sound else 1
    _say(f"{name}: not found by {len(seeds)} worlds")
    return 1


def _say(*lines: object) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
