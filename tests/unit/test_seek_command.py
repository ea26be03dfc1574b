"""`esmd seek` and `esmd replay`, against a node that answers as told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from node import cli
from tests.support.fake_node import fake_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_node import FakeNode


def shard(name: str, was: str | None, now: str, **more: Any) -> dict[str, Any]:
    """Return what becomes of a shard."""
    usual = {"stays": False, "follows": False, "skipped_records": 0, "skipped_s": None}
    return {"id": name, "was": was, "now": now, **usual, **more}


SHARDS = [
    shard("orders-0", "12", "4"),
    shard("orders-1", "4", "12", follows=True, skipped_records=8),
    shard("orders-2", None, "END", skipped_records=None, skipped_s=3.5),
    shard("orders-3", "7", "7", stays=True),
]
ANSWER = {"mapping": "orders", "uuid": "u", "to": "latest", "dry_run": False, "done": True, "skipped_records": None}
COUNTS = {"read_records": 12, "filtered_records": 2, "delivered_records": 1200, "failed_records": 0, "left_records": 0}
BEGIN = {"event": "begin", "mapping": "orders", "from": "the source", "total": 4, "unit": "records", "dry_run": False}
KEPT = {"event": "kept", "what": "orders-0@7\x1b[2J", "records": 1, "error": "Boom"}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    """Serve on loopback, with ESMD_URL pointing there."""
    with fake_node() as server:
        monkeypatch.setenv("ESMD_URL", server.url)
        yield server


def answers(node: FakeNode, status: int = 200, **more: Any) -> None:
    """Have the node answer a seek."""
    node.answer = (status, json.dumps({**ANSWER, "shards": SHARDS, **more}).encode())


def test_a_seek_sends_the_wish_and_says_what_became_of_each_shard(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each, and the sum."""
    answers(node)
    assert cli.run(["seek", "orders", "--to", "latest", "--shard", "orders-1", "--force"]) == 0
    assert node.path == "/esmd/v1/mappings/orders/seek"
    assert json.loads(node.body) == {"to": "latest", "shard": "orders-1", "force": True, "dry_run": False}
    assert capsys.readouterr().out.splitlines() == [
        "orders-0  12 -> 4",
        "orders-1  4 -> 12  passes over 8 unread  follows the shard it came from",
        "orders-2  not begun -> END  passes over unread records",
        "orders-3  stays at 7",
        "orders: 3 of 4 shards moved",
    ]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ({"dry_run": True, "done": False}, 0, "3 of 4 shards would move"),
        ({"done": False}, 1, "3 of 4 shards to be moved"),
    ],
)
def test_what_is_not_done_is_said(
    answer: dict[str, Any], status: int, said: str, node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run is as it should be; a wish that stands is not done."""
    answers(node, 200 if status == 0 else 202, **answer)
    assert cli.run(["seek", "orders", "--to", "latest"]) == status
    assert said in capsys.readouterr().out
    assert cli.run(["seek", "orders", "--to", "latest", "--json"]) == status
    assert json.loads(capsys.readouterr().out) == {**ANSWER, **answer, "shards": SHARDS}


def test_a_place_that_is_none_is_bad_usage(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not sent; nor is a seek without a place."""
    assert cli.run(["seek", "orders", "--to", "tomorrow"]) == 2
    assert "tomorrow is no place" in capsys.readouterr().err
    assert cli.run(["seek", "orders"]) == 2
    assert node.path == ""


def test_a_refusal_is_said_as_it_is(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1."""
    node.answer = (409, b'{"message": "orders: that passes over unread records"}')
    assert cli.run(["seek", "orders", "--to", "latest"]) == 1
    assert "that passes over unread records" in capsys.readouterr().err


def told(node: FakeNode, *lines: dict[str, Any]) -> None:
    """Have the node tell this of a replay."""
    node.answer = (200, list(lines))


def test_a_replay_sends_its_wishes_and_says_what_it_came_to(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Times in milliseconds; only what was asked for."""
    told(
        node, BEGIN, KEPT, {"event": "end", "stopped": False, "seconds": 1.0, "done": 4, **COUNTS, "failed_records": 1}
    )
    arguments = ["--from", "2026-05-01T10:00Z", "--to", "2026-05-01T11:00Z", "--function", "g", "--rate", "2.5"]
    assert cli.run(["replay", "orders", *arguments]) == 1
    assert node.path == "/esmd/v1/mappings/orders/replay"
    assert json.loads(node.body) == {
        "from_ms": 1777629600000.0,
        "to_ms": 1777633200000.0,
        "function": "g",
        "rate": 2.5,
        "dry_run": False,
    }
    assert capsys.readouterr().out.splitlines() == [
        "failed: orders-0@7\N{REPLACEMENT CHARACTER}[2J: Boom",
        "1,200 records delivered, 2 records filtered out, 1 record failed.",
    ]


def test_a_replay_that_is_whole_ends_well(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that was stopped does not; a node that goes away is one that cannot be reached."""
    end = {"event": "end", "stopped": False, "seconds": 1.0, "done": 4, **COUNTS}
    told(node, BEGIN, {"event": "progress", "done": 2, **COUNTS}, end)
    assert cli.run(["replay", "orders", "--from", "2h", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["delivered_records"], document["stopped"], document["kept"]) == (1200, False, [])
    told(node, BEGIN, {**end, "stopped": True, "left_records": 3})
    assert cli.run(["replay", "orders", "--from", "2h"]) == 1
    assert "3 records read and not tried. Stopped before the end." in capsys.readouterr().out
    told(node, BEGIN)
    assert cli.run(["replay", "orders", "--from", "2h"]) == 3
    assert "Stopped before anything was delivered." in capsys.readouterr().out


def test_a_replay_needs_its_beginning(node: FakeNode) -> None:
    """Nobody delivers everything by a slip of the finger."""
    assert cli.run(["replay", "orders"]) == 2
    assert cli.run(["replay", "orders", "--from", "noon"]) == 2
    assert node.path == ""
