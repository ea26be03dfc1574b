"""The row of the command line: how long a person waits for `esmd validate` and `esmd status`, from start to exit."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from benchmarks.kafka import mapping_of
from benchmarks.processes import BenchmarkFailedError
from benchmarks.results import Figure, Row
from benchmarks.sampling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.bench import Bench

_EACH_ROUND = 3
_MAPPINGS = 20


class Commands:
    """`benchmarks.bench.Case`. In turn with a Python that does nothing, which is the floor."""

    name = "commands"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure."""
        bench.say(self.name)
        config = bench.home / "commands.yaml"
        mappings = [
            {"Name": f"orders-{n}", "FunctionName": "f", **mapping_of("127.0.0.1:9092", f"orders-{n}")}
            for n in range(_MAPPINGS)
        ]
        functions = {"f": {"url": "http://127.0.0.1:9"}}
        config.write_bytes(msgspec.json.encode({"functions": functions, "event_source_mappings": mappings}))
        took: dict[str, list[float]] = {"validate": [], "status": [], "python alone": []}
        with bench.redis() as redis, bench.node(None, redis=redis) as node:
            wait_for(node.ready, "a node")
            commands = {
                "validate": ["-m", "node", "validate", str(config)],
                "status": ["-m", "node", "status", "--url", node.url],
                "python alone": ["-c", "pass"],
            }
            for _ in range(1 if bench.options.quick else bench.options.rounds * _EACH_ROUND):
                for what, arguments in commands.items():
                    took[what].append(_ms(arguments))
        yield Row(self.name, tuple(Figure.of(what, "ms", values) for what, values in took.items()))


def _ms(arguments: Sequence[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False, timeout=60)
    took_ms = (time.perf_counter() - began) * 1000
    if done.returncode:
        raise BenchmarkFailedError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return took_ms
