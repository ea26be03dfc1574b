"""The demo's functions in sandboxes: the handlers, what they report, and the configuration without sandboxes."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from config.load import load
from invocation.settings import HandlerFunction, UrlFunction
from node.demo import play, sandboxed
from node.demo.function import Report
from node.demo.function_process import FunctionProcess
from node.demo.handlers import app
from node.demo.handlers.behaviour import Answer
from node.demo.latency import Latencies
from node.demo.sandboxed import CODE, OWN, SandboxReports, own_function
from node.demo.show import SHIPPED
from tests.support.node_process import eventually

if TYPE_CHECKING:
    from pathlib import Path

KAFKA = {"records": {"orders-0": [{"topic": "orders", "partition": 0, "offset": n, "timestamp": 1000} for n in (7, 8)]}}
TIDY = {"time": "1970-01-01T00:00:02Z"}


def context(mapping: str, attempt: int = 1) -> Any:
    """Return what a handler is told besides its event."""
    custom = {"X-Esmd-Mapping": mapping, "X-Esmd-Attempt": str(attempt)}
    return SimpleNamespace(client_context=SimpleNamespace(custom=custom))


@pytest.fixture
async def reports(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Listen to the handlers of this process."""
    async with SandboxReports() as listening:
        host, _, port = listening.configured("127.0.0.1:8125").rpartition(":")
        monkeypatch.setattr(app, "_host", host)
        monkeypatch.setattr(app, "_port", port)
        yield listening


async def told(reports: SandboxReports, calls: int) -> Report:
    """Wait until so many calls have been reported."""
    counted = reports.report.tallies
    await eventually(lambda: sum(tally.calls for tally in counted.values()) >= calls, f"{calls} reports", limit_s=10)
    return reports.report


async def test_calls_are_reported_with_what_came_of_them(
    reports: SandboxReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken, failed in part, failed: records, latencies, errors and retries, by mapping."""
    answers = iter([Answer.TAKE, Answer.FAIL_ONE, Answer.FAIL])
    monkeypatch.setattr(app, "_reporting", SimpleNamespace(answer=lambda **_: next(answers), work_s=lambda _: 0.0))
    assert app.batch(KAFKA, context("m")) == {"batchItemFailures": []}
    named = {"itemIdentifier": {"partition": "orders-0", "offset": 8}}
    assert app.batch(KAFKA, context("m", attempt=2)) == {"batchItemFailures": [named]}
    with pytest.raises(app.DatabaseError):
        app.batch(KAFKA, context("n"))
    app.tidy(TIDY, context("tidy"))
    report = await told(reports, 4)
    m, n, tidy = (report.tallies[name] for name in ("m", "n", "tidy"))
    assert (m.calls, m.records, m.errors, m.retries) == (2, 3, 1, 1)
    assert (n.calls, n.records, n.errors, n.retries) == (1, 0, 1, 0)
    assert Latencies(m.latency).total == 3
    assert tidy.records == 1
    assert report.first_time_s is not None


async def test_what_is_no_report_is_left_alone(reports: SandboxReports) -> None:
    """Anybody on the machine can send something to a port."""
    reports.datagram_received(b"\xff", None)
    reports.datagram_received(json.dumps({"mapping": 1}).encode(), None)
    assert reports.report.tallies == {}


async def test_a_handler_without_a_demo_just_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a node that runs the shipped file."""
    monkeypatch.setattr(app, "_port", "")
    monkeypatch.setattr(app, "_plain", SimpleNamespace(answer=lambda **_: Answer.TAKE, work_s=lambda _: 0.0))
    app.archive(KAFKA, SimpleNamespace(client_context=None))


async def test_both_configurations_are_of_the_same_functions(tmp_path: Path, reports: SandboxReports) -> None:
    """With sandboxes the code is where it is installed; without, each function is a URL."""
    path = tmp_path / "demo.yaml"
    path.write_text(reports.configured(SHIPPED.read_text()))
    sandboxed = load([path], environ={})
    process = FunctionProcess()
    process.report = Report("http://127.0.0.1:1")
    path.write_text(process.configured(SHIPPED.read_text()))
    beside = load([path], environ={})
    assert sandboxed.mappings == beside.mappings
    assert sandboxed.functions.keys() == beside.functions.keys()
    for name, function in sandboxed.functions.items():
        other = beside.functions[name]
        assert isinstance(function, HandlerFunction)
        assert isinstance(other, UrlFunction)
        assert (function.code, other.url) == (str(CODE), f"http://127.0.0.1:1/{name}")
        assert function.timeout_s == other.timeout_s


def test_two_demos_at_one_moment_have_addresses_of_their_own() -> None:
    """An address is kept from the moment it was chosen."""
    with play._listener() as one, play._listener() as other:
        assert one.getsockname() != other.getsockname()
        with pytest.raises(OSError, match="in use"):
            socket.create_server(one.getsockname()).close()


async def test_sandboxes_are_tried_before_they_are_relied_on(open_folder: Path) -> None:
    """What keeps a function from running is the reason that is told; a handler that fails does run."""
    (open_folder / "app.py").write_text("import nothing_like_it")
    (open_folder / "well.py").write_text("def handler(e, c): raise KeyError(e['detail-type'])")
    (open_folder / "bootstrap").write_text("#!/bin/sh\nexit 7\n")
    (open_folder / "bootstrap").chmod(0o755)
    tried = {
        "gone": HandlerFunction("gone", "app.handler", str(open_folder / "gone")),
        "import": HandlerFunction("import", "app.handler", str(open_folder), timeout_s=15),
        "shell": HandlerFunction("shell", "x", str(open_folder), "provided", timeout_s=15),
        "well": HandlerFunction("well", "well.handler", str(open_folder), timeout_s=15),
    }
    told = await sandboxed.cannot_run(tried)
    assert told.keys() == {"gone", "import", "shell"}
    assert told["gone"] == f"code: {open_folder / 'gone'} is no folder"
    assert told["import"].startswith("Runtime.ImportModuleError: Unable to import module 'app': No module named")
    assert "exit status 7" in told["shell"]


async def test_the_demos_own_function_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It runs where sandboxes can be."""
    assert await sandboxed.cannot_run({OWN: own_function()}) == {}
    monkeypatch.setattr(sandboxed, "CODE", tmp_path / "gone")
    assert await sandboxed.cannot_run({OWN: own_function()}) == {OWN: f"code: {tmp_path / 'gone'} is no folder"}
