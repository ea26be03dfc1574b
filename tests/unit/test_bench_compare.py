"""Before and after: what is compared with what."""

from __future__ import annotations

import pytest

from benchmarks.compare import compared, figures


def test_ratios_are_taken_within_a_round() -> None:
    """Figures that one side does not have are left out, so that a new row is no failure."""
    base = [{("kafka", "ratio"): 0.5, ("kafka", "lost"): 0.0}, {("kafka", "ratio"): 1.0, ("kafka", "lost"): 0.0}]
    here = [
        {("kafka", "ratio"): 1.0, ("kafka", "lost"): 0.0, ("new", "CPU"): 1.0},
        {("kafka", "ratio"): 1.5, ("kafka", "lost"): 0.0, ("new", "CPU"): 1.0},
    ]
    ratio, lost = compared(base, here)
    assert (ratio.case, [figure.median for figure in ratio.figures]) == ("kafka: ratio", [0.75, 1.25, 1.75])
    assert lost.figures[-1].median == 1.0


def test_a_run_s_document_is_read_by_its_medians() -> None:
    """As `make bench` writes it."""
    document = {"rows": [{"case": "idle", "figures": {"CPU": {"unit": "%", "median": 3.2, "low": 3.0, "high": 4.0}}}]}
    assert figures(document) == {("idle", "CPU"): pytest.approx(3.2)}
