"""The benchmarks run: every row is there, with figures. Nothing is said about how good they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from benchmarks.__main__ import CASES

if TYPE_CHECKING:
    from tests.support.kafka_admin import KafkaAdmin

_ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("elasticmq", "kinesis_local")  # skips where the run could not start them
def test_every_case_yields_a_row_of_figures(real_kafka: KafkaAdmin, tmp_path: Path) -> None:
    """A quick run ends well, prints every case and writes it to the JSON document."""
    output = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "ESMD_TEST_KAFKA": real_kafka.bootstrap_servers},
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert (done.returncode, [case.name for case in CASES if case.name not in done.stdout]) == (0, []), done.stderr
    document = msgspec.json.decode(output.read_bytes())
    assert [row["case"] for row in document["rows"]] == [case.name for case in CASES]
    figures = {row["case"]: row["figures"] for row in document["rows"]}
    assert all(
        figures[name]["records/CPU-s"]["median"] > 0 for name in figures if name.startswith(("kafka", "kinesis", "sqs"))
    )
    assert all(figures[name]["times plain"]["median"] > 0 for name in figures if name.startswith(("kinesis", "sqs")))
    assert all(figures[name]["p50"]["median"] > 0 for name in ("kafka-100", "kinesis-100", "sqs-10"))
    assert all(figures[name]["lost"]["high"] == 0 for name in figures if name.startswith("take-over"))
