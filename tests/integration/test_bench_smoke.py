"""The benchmarks run: every row is there, with figures. Nothing is said about how good they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from benchmarks import versus
from benchmarks.__main__ import CASES

if TYPE_CHECKING:
    from tests.support.kafka_admin import KafkaAdmin

_PEERS = (*versus.KAFKA, *versus.KINESIS, *versus.SQS)
_ROOT = Path(__file__).parent.parent.parent


_ALL_PEERS = os.environ.get("ESMD_BENCH_PEERS") == "1"  # also those that fetch packages: a minute or two more


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("elasticmq", "kinesis_local")  # skips where the run could not start them
def test_every_case_yields_a_row_of_figures(real_kafka: KafkaAdmin, tmp_path: Path) -> None:
    """A quick run ends well, prints every case and writes it to the JSON document."""
    output = tmp_path / "results.json"
    downloads = [] if _ALL_PEERS else ["--no-downloads"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *downloads, "--output", str(output)],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "ESMD_TEST_KAFKA": real_kafka.bootstrap_servers},
        capture_output=True,
        text=True,
        check=False,
        timeout=840,
    )
    assert (done.returncode, [case.name for case in CASES if case.name not in done.stdout]) == (0, []), done.stderr
    rows = msgspec.json.decode(output.read_bytes())["rows"]
    assert list(dict.fromkeys(row["case"].partition(": ")[0] for row in rows)) == [case.name for case in CASES]
    left_out = {row["case"]: row["left_out"] for row in rows if "left_out" in row}
    assert _unexpected(left_out) == {}
    figures = {row["case"]: row["figures"] for row in rows if row["case"] not in left_out}
    assert all(
        figures[name]["records/CPU-s"]["median"] > 0
        for name in figures
        if name.startswith(("kafka", "kinesis", "sqs", "peers"))
    )
    assert all(figures[name]["times plain"]["median"] > 0 for name in figures if name.startswith(("kinesis", "sqs")))
    assert all(figures[name]["p50"]["median"] > 0 for name in ("kafka-100", "kinesis-100", "sqs-10"))
    ours = [name for name in figures if name.startswith("take-over") or name == "fleet: node"]
    assert [figures[name]["lost"]["high"] for name in ours] == [0, 0, 0]
    assert len([name for name in figures if name.startswith("fleet: ")]) == 3


def _unexpected(left_out: dict[str, str]) -> dict[str, str]:
    """Return what was left out for another reason than that packages were not wanted or that quotas cannot be had."""
    unwanted = set() if _ALL_PEERS else {peer.shown for peer in _PEERS if peer.downloads}
    return {
        case: reason
        for case, reason in left_out.items()
        if case.partition(": ")[2] not in unwanted and (case != "processes" or "control groups" not in reason)
    }
