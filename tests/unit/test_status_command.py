"""`esmd status`."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from node import cli
from node.commands.status import render
from tests.support.fake_node import fake_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_node import FakeNode

DOCUMENT: dict[str, Any] = {
    "node": "ann-1",
    "nodes": [{"id": "ann-1", "roles": ["pollers", "statemgr"], "shards": 2, "heartbeat_age_s": 0.4}],
    "mappings": [
        {
            "name": "clicks",
            "uuid": "0a7c9a52",
            "state": "Enabled",
            "last_processing_result": "PROBLEM: Function call failed",
            "ledger": {"polled": 12345, "delivered": 12340, "in_flight": 4, "balanced": False},
            "shards": [
                {
                    "id": "orders-0",
                    "owner": "ann-1",
                    "fencing_token": 7,
                    "checkpoint": "42",
                    "lag_records": 1200,
                    "lag_s": 3.21,
                    "state": "retrying",
                    "last_error": "\x1b[2Jhandler said [red]no[/red]",
                    "parked_keys": [
                        {"key": "k-1", "records": 3, "bytes": 9, "age_s": 61.2, "failures": 4, "last_error": "bo\x07om"}
                    ],
                },
                {
                    "id": "orders-1",
                    "owner": None,
                    "fencing_token": 0,
                    "checkpoint": None,
                    "lag_records": None,
                    "lag_s": None,
                    "state": "unowned",
                    "last_error": None,
                    "parked_keys": [],
                    "remark": "polled: no fan-out",
                },
            ],
        }
    ],
}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    """Serve a node's status on loopback, with ESMD_URL pointing there."""
    monkeypatch.delenv("ESMD_TOKEN", raising=False)
    with fake_node() as server:
        server.answer = (200, json.dumps(DOCUMENT).encode())
        monkeypatch.setenv("ESMD_URL", server.url)
        yield server


def test_json_is_the_nodes_document(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints what the node says, as one document on standard output."""
    assert cli.run(["status", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == DOCUMENT
    assert output.err == ""
    assert node.path == "/esmd/v1/status"


def test_people_see_everything_that_matters(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """The table shows nodes, results, the ledger and each shard; no text can act on the terminal."""
    assert cli.run(["status"]) == 0
    text = capsys.readouterr().out
    for shown in (
        "ann-1",
        "pollers, statemgr",
        "0.4 s ago",
        "clicks",
        "PROBLEM: Function call failed",
        "polled 12,345",
        "records are unaccounted for",
        "1,200",
        "unowned",
        "[red]no[/red]",
        "k-1",
        "61 s",
        "polled: no fan-out",
        "clicks  Enabled  PROBLEM",
    ):
        assert shown in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("circuit", "shown"),
    [
        (None, None),
        ({"state": "closed", "since_s": 5.0, "retry_in_s": None, "last_error": None, "limit": None}, None),
        (
            {"state": "closed", "since_s": None, "retry_in_s": None, "last_error": "HTTP 429", "limit": 3},
            "the function is given 3 batches at once from a node",
        ),
        (
            {"state": "open", "since_s": 3661.2, "retry_in_s": 12.4, "last_error": "away\x1b[2J", "limit": None},
            "the circuit is open for 3,661 s, next try in 12 s: away",
        ),
        (
            {"state": "half_open", "since_s": 7.0, "retry_in_s": 0.0, "last_error": "refused", "limit": None},
            "the circuit is half-open for 7 s, next try in 0 s: refused",
        ),
    ],
)
def test_a_circuit_that_is_not_as_usual_is_told(circuit: dict[str, Any] | None, shown: str | None) -> None:
    """In one line under the mapping; an older node's document has none."""
    mapping = {**DOCUMENT["mappings"][0], **({} if circuit is None else {"circuit": circuit})}
    console = Console(width=200)
    with console.capture() as captured:
        for part in render({**DOCUMENT, "mappings": [mapping]}):
            console.print(part)
    text = captured.get()
    assert ("circuit is" in text or "at once" in text) == (shown is not None)
    assert shown is None or shown in text
    assert "\x1b[2J" not in text


def test_a_token_is_sent_to_a_node_that_wants_one(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ESMD_TOKEN goes out as a bearer token; without it the refusal says what to do."""
    monkeypatch.setenv("ESMD_TOKEN", "t0ken")
    assert cli.run(["status"]) == 0
    assert node.authorization == "Bearer t0ken"
    node.answer = (401, b'{"message": "this node wants a token"}')
    assert cli.run(["status"]) == 1
    assert "this node wants a token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ((503, b'{"message": "Redis is away"}'), 3, "Redis is away"),
        ((404, b"<html>"), 1, "Is it an esmd node?"),
        ((200, b"<html>"), 3, "no esmd node"),
        ((200, b'{"node": 1}'), 1, "another version"),
    ],
)
def test_an_answer_that_is_no_status_is_said_in_one_line(
    node: FakeNode, answer: tuple[int, bytes], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever answers, the command ends with a status and a message instead of a traceback."""
    node.answer = answer
    assert cli.run(["status"]) == status
    output = capsys.readouterr()
    assert said in output.err
    assert len(output.err.splitlines()) == 1


def test_no_node_is_status_3_with_the_mend(capsys: pytest.CaptureFixture[str]) -> None:
    """When nothing listens the message says where it looked and what to do; proxies are not asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{free.getsockname()[1]}"
        assert cli.run(["status", "--url", url]) == 3
    error = capsys.readouterr().err
    assert f"http://{url}" in error
    assert "esmd run CONFIG" in error
    assert "--url" in error


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:99999", "http://h:x", "http://[bad", "http://h/a b"])
def test_what_is_no_url_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong --url is no crash."""
    assert cli.run(["status", "--url", url]) == 1
    assert "--url is not a URL" in capsys.readouterr().err
