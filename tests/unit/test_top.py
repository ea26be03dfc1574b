"""`esmd top`."""

from __future__ import annotations

import copy
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from node import cli
from node.terminal import decode_keys
from node.top_view import Choice, Courses, screen
from tests.support import leash
from tests.support.fake_node import fake_node
from tests.support.node_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_node import FakeNode


def shard(name: str, state: str = "reading", **more: Any) -> dict[str, Any]:
    """Return a shard's part of the status."""
    told = {"owner": "ann-1", "fencing_token": 7, "checkpoint": "42", "lag_records": 10, "lag_s": 0.5}
    return {"id": name, "state": state, "last_error": None, "parked_keys": [], "remark": None, **told, **more}


def mapping(name: str, delivered: int, *shards: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a mapping's part of the status."""
    ledger = {"polled": delivered + 4, "delivered": delivered, "filtered": 0, "destination": 0, "dropped": 0}
    return {
        "name": name,
        "uuid": f"uuid-{name}",
        "state": "Enabled",
        "last_processing_result": "OK",
        "circuit": {"state": "closed", "since_s": None, "retry_in_s": None, "last_error": None, "limit": None},
        "ledger": {**ledger, "parked": 0, "in_flight": 4, "balanced": True},
        "shards": list(shards),
        **more,
    }


def document(delivered: int = 0, **more: Any) -> dict[str, Any]:
    """Return a status document of two mappings, one of them with many shards."""
    many = [shard(f"s-{n}", lag_records=n) for n in range(40)]
    many[20] = shard("s-20", "failed", last_error="\x1b[2Jhandler said [red]no[/red]\nmore")
    nodes = [{"id": "ann-1", "roles": ["pollers"], "shards": 41, "heartbeat_age_s": 0.4}]
    mappings = [mapping("orders", delivered, *many, **more), mapping("clicks", 0, shard("c-0", lag_s=None))]
    return {"node": "ann-1", "nodes": nodes, "mappings": mappings}


def drawn(shown: dict[str, Any], courses: Courses, choice: Choice, *, width: int = 120, **more: Any) -> list[str]:
    """Return the lines of a screen."""
    out = Console(width=width, file=io.StringIO(), highlight=False)
    out.print(screen(shown, courses, choice, width=width, **more))
    return str(out.file.getvalue()).splitlines()  # type: ignore[attr-defined]  # a StringIO


@pytest.fixture
def courses() -> Courses:
    """Return what two documents, two seconds apart, told."""
    seen = Courses()
    seen.take(document(100), at=10.0)
    seen.take(document(500), at=12.0)
    return seen


def test_a_frame_shows_rates_lag_and_the_worst_shards_first(courses: Courses) -> None:
    """What flows, what waits, and what has failed with its first line, unable to act on the terminal."""
    lines = drawn(document(500), courses, Choice())
    text = "\n".join(lines)
    assert "2 mappings, 41 shards, 1 nodes" in lines[0]
    assert lines[0].rstrip().endswith("200 delivered/s")
    (row,) = [line for line in lines if line.startswith("▸ orders")]
    assert row.split()[2:6] == ["200", "4", "0", "770"]
    assert "39 reading, 1 failed" in text
    shards = [line for line in lines if line.startswith("  s-")]
    assert shards[0].startswith("  s-20")
    assert shards[1].startswith("  s-39")
    assert "handler said [red]no[/red]" in shards[0]
    assert "\x1b" not in text
    assert "more" not in shards[0]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 12), (200, 10)])
def test_a_frame_fits_its_terminal(courses: Courses, width: int, height: int) -> None:
    """No more lines than there are, and no longer ones, whatever the size of the fleet."""
    shown = document(500)
    shown["mappings"] += [mapping(f"more-{n}", 0) for n in range(50)]
    for chosen in ("orders", "more-49"):
        lines = drawn(shown, courses, Choice(name=chosen), width=width, height=height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        assert any(line.startswith(f"▸ {chosen}"[: width // 4]) for line in lines)


def test_rates_survive_ledgers_that_go_back_and_mappings_that_come_and_go(courses: Courses) -> None:
    """A hand-over is no negative rate; a new mapping has none yet; one that went is forgotten."""
    courses.take(document(0), at=13.0)
    assert courses.rates("uuid-orders") == dict.fromkeys(
        ("polled", "delivered", "filtered", "destination", "dropped"), 0
    )
    assert list(courses.history("uuid-orders")) == [200, 0]
    other = document()
    other["mappings"] = [mapping("new", 5)]
    courses.take(other, at=14.0)
    assert courses.rates("uuid-new") is None
    assert courses.rates("uuid-orders") is None
    assert courses.history("uuid-orders") == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"last_processing_result": "PROBLEM: no"}, "problem"),
        ({"state": "Disabled"}, "Disabled"),
        ({"circuit": {"state": "open", "since_s": 1, "retry_in_s": 2, "last_error": "away", "limit": None}}, "slowed"),
    ],
)
def test_a_mappings_trouble_is_said_in_a_word(courses: Courses, more: dict[str, Any], said: str) -> None:
    """The gravest thing, with its reason beside the shards."""
    lines = drawn(document(500, **more), courses, Choice())
    assert said in next(line for line in lines if line.startswith("▸ orders"))


def test_keys_choose_find_and_end() -> None:
    """Arrows stop at the ends, text narrows the list, Escape widens it, q ends unless it is typed."""
    shown, choice = document(), Choice()
    for key, name in (("down", "clicks"), ("down", "clicks"), ("up", "orders"), ("up", "orders"), ("j", "clicks")):
        assert choice.press(key, shown)
        assert choice.name == name
    for key in ("/", "q", "x", "backspace", "backspace", "r", "d", "enter"):
        assert choice.press(key, shown)
    assert ([one["name"] for one in choice.shown(shown)], choice.typing) == (["orders"], False)
    assert "“rd”" in drawn(shown, Courses(), choice)[-1]
    choice.press("escape", shown)
    assert len(choice.shown(shown)) == 2
    empty = copy.deepcopy(shown)
    empty["mappings"] = []
    assert choice.press("down", empty)
    assert not choice.press("q", shown)


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[Bx", ["up", "down", "x"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[1;5Cq", ["q"]),
        (b"\x1b[", ["escape", "["]),
        ("é\r\x7f".encode(), ["é", "enter", "backspace"]),
        (b"a\x1b[A", ["a", "up"]),
        (b"", []),
        (b"\xff", []),
    ],
)
def test_what_a_terminal_sends_is_taken_apart(typed: bytes, keys: list[str]) -> None:
    """Characters, arrows of both kinds, controls; what means nothing here is passed over."""
    assert decode_keys(typed) == keys


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """Return a node that answers with the document."""
    with fake_node() as running:
        running.answer = (200, json.dumps(document(500)).encode())
        yield running


def test_once_prints_one_frame(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts: no terminal control, rates over one interval, exit status 0."""
    assert cli.run(["top", "--once", "--interval", "0.2", "--url", node.url]) == 0
    printed = capsys.readouterr().out
    assert "▸ orders" in printed
    assert "0 delivered/s" in printed
    assert "\x1b" not in printed
    assert node.path == "/esmd/v1/status"


def test_without_a_terminal_or_a_node_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage is 2, a node that is not there 3."""
    assert cli.run(["top"]) == 2
    assert "--once" in capsys.readouterr().err
    assert cli.run(["top", "--once", "--url", "http://127.0.0.1:9"]) == 3


def test_in_a_terminal_it_draws_heeds_keys_and_leaves_it_as_it_was(node: FakeNode) -> None:
    """The screen appears, the arrow moves the mark, q ends with status 0 and the terminal shows what was there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "node", "top", "--interval", "0.2", "--url", node.url]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=env)
    leash.hold(process)
    os.close(theirs)
    seen = b""

    def until(said: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + 30
        while re.search(said.encode(), seen) is None:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # it has ended
                    break
        assert re.search(said.encode(), seen) is not None, seen

    try:
        until(r"▸ (\x1b\[[\d;]*m)*orders")
        os.write(ours, b"\x1b[B")
        until(r"▸ (\x1b\[[\d;]*m)*clicks")
        node.answer = (503, b'{"message": "Redis is away"}')
        until("no news: ")
        os.write(ours, b"q")
        until(r"\x1b\[\?1049l")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
