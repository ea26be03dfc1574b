"""`esmd invoke`."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from node import cli
from tests.support.fake_node import fake_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fake_node import FakeNode

FAILED = b'{"errorMessage":"no \\u001b[31mgood","errorType":"ValueError","stackTrace":[]}'


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    """Serve on loopback, with ESMD_URL pointing there."""
    with fake_node() as server:
        monkeypatch.setenv("ESMD_URL", server.url)
        yield server


@pytest.fixture
def event(tmp_path: Path) -> str:
    """Return the path of an event."""
    file = tmp_path / "event.json"
    file.write_bytes(b'{"a": 1}')
    return str(file)


def test_the_result_is_printed_as_it_came(node: FakeNode, event: str, capfd: pytest.CaptureFixture[str]) -> None:
    """To standard output, with nothing around it; the name goes into the path whatever is in it."""
    node.answer = (200, b'{"b": 2}')
    assert cli.run(["invoke", "a/b:live", "--payload", event]) == 0
    assert capfd.readouterr() == ('{"b": 2}', "")
    assert node.path == "/2015-03-31/functions/a%2Fb%3Alive/invocations"
    assert node.body == b'{"a": 1}'
    assert (node.headers["X-Amz-Invocation-Type"], node.headers["X-Amz-Log-Type"]) == ("RequestResponse", "None")


def test_a_function_error_is_the_status(node: FakeNode, event: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Its type and message go to standard error, without what a terminal would obey; so does the log."""
    log = b64encode(b"START\nEND\n").decode()
    node.answer = (200, FAILED)
    node.more_headers = {"X-Amz-Function-Error": "Unhandled", "X-Amz-Log-Result": log}
    assert cli.run(["invoke", "f", "--payload", event, "--log"]) == 1
    assert capfd.readouterr() == ("", "START\nEND\nesmd: f: ValueError: no [31mgood\n")
    assert node.headers["X-Amz-Log-Type"] == "Tail"


def test_all_of_it_as_json(node: FakeNode, event: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One document, also when the function failed."""
    node.answer = (200, FAILED)
    node.more_headers = {
        "X-Amz-Function-Error": "Unhandled",
        "X-Amz-Executed-Version": "$LATEST",
        "x-amzn-RequestId": "id",
    }
    assert cli.run(["invoke", "f", "--payload", event, "--json"]) == 1
    assert json.loads(capfd.readouterr().out) == {
        "payload": json.loads(FAILED),
        "function_error": "Unhandled",
        "executed_version": "$LATEST",
        "request_id": "id",
        "log": None,
    }


def test_a_result_that_is_no_json_is_its_text(node: FakeNode, event: str, capfd: pytest.CaptureFixture[str]) -> None:
    """As a URL may answer."""
    node.answer = (200, b"done")
    assert cli.run(["invoke", "f", "--payload", event, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["payload"] == "done"


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500])
def test_refusals_are_told(node: FakeNode, event: str, capfd: pytest.CaptureFixture[str], status: int) -> None:
    """In the node's words, whichever name AWS has for them; --async is refused by the node and not here."""
    node.answer = (status, b'{"Type":"User","Message":"why not"}')
    node.more_headers = {"x-amzn-ErrorType": "AnyException"}
    assert cli.run(["invoke", "f", "--payload", event, "--async"]) == 1
    assert capfd.readouterr() == ("", "esmd: why not\n")
    assert node.headers["X-Amz-Invocation-Type"] == "Event"


def test_a_function_that_is_away(node: FakeNode, event: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is a component that cannot be reached."""
    node.answer = (502, b'{"Type":"Service","Message":"the function could not be reached"}')
    assert cli.run(["invoke", "f", "--payload", event]) == 3
    assert "the function could not be reached" in capfd.readouterr().err


def test_an_event_is_read_from_standard_input(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a file is named; one that is not there is bad usage."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[1]")))
    assert cli.run(["invoke", "f"]) == 0
    assert node.body == b"[1]"
    assert cli.run(["invoke", "f", "--payload", "/none/there"]) == 2
