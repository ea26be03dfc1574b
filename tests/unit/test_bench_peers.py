"""The folders of peers, and how the table shows what was left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import peering, versus
from benchmarks.__main__ import CASES
from benchmarks.filtering import BytesView
from benchmarks.kafka import Kafka
from benchmarks.load_kafka import KEPT, KEPT_ONE_IN, value
from benchmarks.peers import by_hand
from benchmarks.results import Figure, Row, table
from pollers.filtering import compile_filter

_PEERS = (*versus.KAFKA, *versus.KINESIS, *versus.SQS)
_HOME = Path(peering.__file__).parent / "peers"


def test_every_folder_is_measured() -> None:
    """None is forgotten, and none is measured that is not there."""
    folders = {path.name for path in _HOME.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {peer.folder for peer in _PEERS} == folders
    cases = {"peers-kafka", "peers-kafka-filter", "peers-kinesis", "peers-kinesis-filter", "peers-sqs"}
    assert {case.name for case in CASES if case.name.startswith("peers-")} == cases


@pytest.mark.parametrize("peer", _PEERS, ids=lambda peer: peer.title)
def test_a_peer_has_a_pinned_version_and_says_what_it_promises(peer: peering.Peer) -> None:
    """The table shows the version; every requirement is exact; the README names what is promised of each."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", peer.version)
    requirements = _HOME / peer.folder / "requirements.txt"
    lines = requirements.read_text().splitlines() if requirements.exists() else []
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9.]+(\.post\d+)?", line)] == []
    said = (_HOME / peer.folder / "README.md").read_text().lower()
    assert [word for word in ("promises:", "order", "at least once", "retries") if word not in said] == []
    assert any(word in said for word in ("checkpoints", "commits", "committed", "deleted"))


def test_a_filter_by_hand_keeps_what_the_pattern_keeps() -> None:
    """Of the backlog, one record in ten; and nothing of a record without data."""
    backlog = [value(number, 1_700_000_000_000_000) for number in range(100)]
    by_pattern = compile_filter([Kafka.pattern], BytesView()).keep(backlog)
    assert [by_hand.kept(data, KEPT) for data in backlog] == by_pattern
    assert sum(by_pattern) * KEPT_ONE_IN == len(backlog)
    assert not by_hand.kept(None, KEPT)


def test_what_was_left_out_is_told_below_the_tables() -> None:
    """With its reason, and without a row of figures."""
    rows = [Row("here", (Figure.of("records/s", "1/s", [2.0]),)), Row("gone", (), "no Java")]
    assert table(rows).splitlines() == [
        "case  records/s",
        "----  ---------",
        "here       2.00",
        "",
        "left out: gone: no Java",
    ]
