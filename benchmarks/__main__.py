"""`make bench`: measure, print the table, write `benchmarks/results/latest.json`.

    python -m benchmarks [--case PREFIX]… [--rounds N] [--seconds S] [--quick] [--embedded] [--no-downloads]

A case is a small module: it is given a `benchmarks.bench.Bench` and returns rows. `CASES` names them all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import filtering, versus
from benchmarks.bench import Bench, Options
from benchmarks.commands import Commands
from benchmarks.counting import CountingCost
from benchmarks.deliveries import Deliveries
from benchmarks.fleet import Fleet
from benchmarks.growth import Growth
from benchmarks.idle import IdleShards
from benchmarks.kafka import Kafka
from benchmarks.kinesis import Kinesis
from benchmarks.latency import Latency
from benchmarks.machine import describe, pin
from benchmarks.processes import BenchmarkFailedError
from benchmarks.results import table, write
from benchmarks.sandbox import InvokeOverHttp, Sandbox
from benchmarks.sqs import Sqs
from benchmarks.takeover import TakeOver
from benchmarks.two_processes import TwoProcesses
from benchmarks.versus import Peers
from tests.support.servers import ServerFailedError, ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Case
    from benchmarks.results import Row

_KAFKA, _KINESIS, _SQS = _SOURCES = Kafka(), Kinesis(), Sqs()
CASES: tuple[Case, ...] = (
    *filtering.cases(),
    Commands(), Sandbox(), InvokeOverHttp(), CountingCost(),
    *[case for source in _SOURCES for case in Deliveries.cases(source)],
    Peers(_KAFKA, versus.KAFKA), Peers(_KAFKA, versus.KAFKA, filtered=True),
    Peers(_KINESIS, versus.KINESIS), Peers(_KINESIS, versus.KINESIS, filtered=True), Peers(_SQS, versus.SQS),
    Latency(), TwoProcesses(_KAFKA), Growth(), *IdleShards.cases(), TakeOver(3), TakeOver(10), Fleet(),
)  # fmt: skip

_LATEST = Path(__file__).parent / "results" / "latest.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what a node costs.")
    parser.add_argument("--case", action="append", default=[], metavar="PREFIX", help="only cases that begin so")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each throughput case (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each round (default: 4)")
    parser.add_argument("--rate", type=float, default=200.0, help="records per second, for latencies (default: 200)")
    parser.add_argument("--quick", action="store_true", help="only see that every case runs: the figures mean nothing")
    parser.add_argument(
        "--embedded", action="store_true", help="the embedded broker: it does not long-poll, so only to try things"
    )
    parser.add_argument("--no-downloads", action="store_true", help="leave out peers that need packages of their own")
    parser.add_argument("--output", type=Path, default=_LATEST, metavar="FILE", help="where to write the JSON document")
    asked = parser.parse_args(arguments)
    chosen = [case for case in CASES if not asked.case or any(case.name.startswith(one) for one in asked.case)]
    if not chosen or asked.rounds < 1 or asked.seconds <= 0 or asked.rate <= 0:
        parser.error(f"nothing to do; the cases are {', '.join(case.name for case in CASES)}")
    options = Options(
        rounds=1 if asked.quick else asked.rounds,
        seconds=0.3 if asked.quick else asked.seconds,
        rate=asked.rate,
        quick=asked.quick,
        embedded=asked.embedded,
        download=not asked.no_downloads,
    )
    rows: list[Row] = []
    try:
        with Bench(options) as bench:
            machine = describe(bench.cpus)
            pin(0, bench.cpus.others)  # and so every server and every load that is started from here
            for case in chosen:
                rows += case.run(bench)
    except (ServerUnavailableError, ServerFailedError) as exc:
        print(f"not started: {exc}", file=sys.stderr)
        return 3
    except BenchmarkFailedError as exc:
        print(f"failed: {exc}", file=sys.stderr)
        return 1
    print(table(rows))
    write(
        asked.output, rows, machine=machine,
        options={"rounds": options.rounds, "seconds": options.seconds, "rate": options.rate, "quick": options.quick,
                 "embedded": options.embedded},
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
