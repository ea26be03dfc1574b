"""`esmd redrive`."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from node import cli
from node.following import Bar, Told
from tests.support.fake_node import fake_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_node import FakeNode

COUNTS = {
    "documents": 4,
    "delivered_documents": 2,
    "failed_documents": 1,
    "gone_documents": 0,
    "skipped_documents": 1,
    "delivered_records": 1200,
    "failed_records": 0,
    "gone_records": 0,
}
BEGIN = {
    "event": "begin",
    "mapping": "orders",
    "from": "SQS queue q",
    "total": 4,
    "unit": "documents",
    "dry_run": False,
}
PROGRESS = {"event": "progress", "done": 2, **COUNTS}
END = {"event": "end", "stopped": False, "seconds": 1.5, **COUNTS, "skipped": {"of another function, f\x1b": 1}}
KEPT = {"event": "kept", "what": "m\x1b[2J", "records": 1, "error": "Boom"}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    """Serve on loopback, with ESMD_URL pointing there."""
    monkeypatch.delenv("ESMD_TOKEN", raising=False)
    with fake_node() as server:
        monkeypatch.setenv("ESMD_URL", server.url)
        yield server


def told(node: FakeNode, *lines: dict[str, Any]) -> None:
    """Have the node tell this."""
    node.answer = (200, list(lines))


def test_the_wishes_are_sent_as_they_are(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those given; the token goes along as everywhere."""
    told(node, BEGIN, END)
    monkeypatch.setenv("ESMD_TOKEN", "t0ken")
    arguments = ["--from", "parked", "--since", "2026-05-01T10:00Z", "--rate", "2.5", "--dry-run"]
    assert cli.run(["redrive", "orders", *arguments]) == 0
    assert node.path == "/esmd/v1/mappings/orders/redrive"
    assert json.loads(node.body) == {"from": "parked", "since_ms": 1777629600000.0, "rate": 2.5, "dry_run": True}
    assert node.authorization == "Bearer t0ken"
    assert cli.run(["redrive", "orders"]) == 0
    assert json.loads(node.body) == {"dry_run": False}


@pytest.mark.parametrize(
    ("since", "seconds_ago"), [("90s", 90), ("30min", 1800), ("2h", 7200), ("1.5d", 129_600), ("5m", 300)]
)
def test_since_is_a_time_or_so_long_ago(node: FakeNode, since: str, seconds_ago: float) -> None:
    """Whatever is handier at night."""
    told(node, BEGIN, END)
    assert cli.run(["redrive", "orders", "--since", since]) == 0
    assert json.loads(node.body)["since_ms"] / 1000 == pytest.approx(time.time() - seconds_ago, abs=60)


def test_a_time_without_zone_is_utc(node: FakeNode) -> None:
    """As in every log."""
    told(node, BEGIN, END)
    assert cli.run(["redrive", "orders", "--since", "2026-05-01T10:00"]) == 0
    assert json.loads(node.body)["since_ms"] == 1777629600000.0


def test_people_see_what_it_came_to(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary on standard output, the course on standard error; no text can act on the terminal."""
    waiting = {"event": "waiting", "error": "429", "retry_in_s": 3}
    told(node, BEGIN, {"event": "alive"}, waiting, waiting, PROGRESS, KEPT, {**END, "failed_records": 1})
    assert cli.run(["redrive", "orders"]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "stays: m\N{REPLACEMENT CHARACTER}[2J, 1 record: Boom",
        "left alone: 1 document, of another function, f\N{REPLACEMENT CHARACTER}",
        "1,200 records of 4 documents delivered, 1 record failed again and stay.",
    ]
    assert output.err.splitlines() == [
        "from SQS queue q, 4 documents",
        "waiting: 429",
        "2 of 4 done, 1,200 records delivered",
    ]


def test_json_is_one_document_and_nothing_else(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """With everything that stays."""
    told(node, BEGIN, PROGRESS, KEPT, END)
    assert cli.run(["redrive", "orders", "--json"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert json.loads(output.out) == {
        "mapping": "orders",
        "from": "SQS queue q",
        "dry_run": False,
        **COUNTS,
        "seconds": 1.5,
        "skipped": {"of another function, f\x1b": 1},
        "stopped": False,
        "kept": [{"what": KEPT["what"], "records": 1, "error": "Boom"}],
    }


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (END, 0),
        ({**END, "failed_records": 1}, 1),
        ({**END, "gone_records": 1}, 1),
        ({**END, "stopped": True}, 1),
        ({**END, "skipped_documents": 9}, 0),
    ],
)
def test_the_status_is_0_only_when_nothing_is_left(
    node: FakeNode, end: dict[str, Any], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is somebody else's does not count."""
    told(node, BEGIN, end)
    assert cli.run(["redrive", "orders"]) == status
    assert ("run it again" in capsys.readouterr().out) == end["stopped"]


@pytest.mark.parametrize(
    ("last", "status", "said"),
    [
        ({"event": "error", "message": "access denied", "unreachable": False}, 1, "esmd: access denied"),
        ({"event": "error", "message": "no broker", "unreachable": True}, 3, "esmd: no broker"),
        ({"event": "alive"}, 3, "the node is gone in the middle of it: run it again to go on"),
    ],
)
def test_what_was_done_before_an_error_is_told_all_the_same(
    node: FakeNode, last: dict[str, Any], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is on standard error, with the contract's status."""
    told(node, BEGIN, PROGRESS, last)
    assert cli.run(["redrive", "orders"]) == status
    output = capsys.readouterr()
    assert said in output.err
    assert "1,200 records of 4 documents delivered" in output.out
    assert output.out.rstrip().endswith("Stopped before the end: run it again to go on.")


def test_a_refusal_is_one_line(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing began, so there is no summary."""
    node.answer = (409, b'{"message": "a redrive of orders is under way on this node"}')
    assert cli.run(["redrive", "orders"]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "esmd: a redrive of orders is under way on this node\n")


def test_the_bar_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: documents done of those there are, records delivered, what it waits for."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, highlight=False)
    monkeypatch.setattr("node.printing.console", lambda _file: console)
    with Bar() as bar:
        for line in (BEGIN, PROGRESS, {"event": "waiting", "error": "42\x1b9", "retry_in_s": 1}, {"event": "alive"}):
            bar(line, Told())
        console.print(bar._progress)
    text = shown.getvalue()
    assert "documents from SQS queue q" in text
    assert "2/4" in text
    assert "waiting: 42\N{REPLACEMENT CHARACTER}9" in text


@pytest.mark.parametrize("text", ["1969-12-31", "30000d", "9" * 400 + "d", "soon"])
def test_a_time_before_1970_is_no_time(node: FakeNode, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage, and the node is not asked."""
    assert cli.run(["redrive", "orders", "--since", text]) == 2
    assert "1970" in capsys.readouterr().err
    assert not node.path


def test_a_time_may_be_epoch_seconds(node: FakeNode) -> None:
    """As everywhere else where a time is given."""
    told(node, BEGIN, END)
    assert cli.run(["redrive", "orders", "--since", "1700000000.25"]) == 0
    assert json.loads(node.body)["since_ms"] == 1_700_000_000_250
