"""Latencies as the bench takes them: of each record, from its acknowledgement to where it arrived first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from benchmarks.latency import acknowledged, latencies
from benchmarks.load_kafka import Answers
from benchmarks.sink import Arrival

if TYPE_CHECKING:
    from pathlib import Path


class Message:
    """A record that a broker has taken."""

    def __init__(self, partition: int, offset: int) -> None:
        self._place = partition, offset

    def partition(self) -> int:
        """Where."""
        return self._place[0]

    def offset(self) -> int:
        """And at which place there."""
        return self._place[1]


def test_a_record_s_latency_is_that_of_its_first_arrival(tmp_path: Path) -> None:
    """Those that nobody timed do not count, nor does coming again."""
    log = tmp_path / "log"
    arrivals = [
        Arrival(5_000, "", 0, [("t-0/1", 0), ("t-1/7", 0)]),
        Arrival(9_000, "", 0, [("t-0/1", 0), ("t-0/2", 0)]),
    ]
    log.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in arrivals))
    assert latencies({"t-0/1": 2_000, "t-0/2": 9_500, "t-0/3": 1}, log) == {"t-0/1": 3.0, "t-0/2": -0.5}


def test_acknowledgements_are_kept_but_for_the_first_ones(tmp_path: Path) -> None:
    """A tenth, by when they were heard of: the connections are being made."""
    answers = Answers(kept=True)
    for offset in range(20):
        answers.told(None, Message(3, offset))
    file = tmp_path / "acks"
    file.write_text("".join(f"{line}\n" for line in answers.heard))
    found = acknowledged(file, "t")
    assert list(found) == [f"t-3/{offset}" for offset in range(2, 20)]
    assert all(at_us > 0 for at_us in found.values())


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_broker_refused_is_no_acknowledgement(kept: bool) -> None:  # noqa: FBT001 - both ways
    """It fails the load."""
    answers = Answers(kept=kept)
    answers.told("no", None)
    answers.told(None, Message(0, 0))
    assert answers.failed == ["no"]
    assert len(answers.heard) == kept
