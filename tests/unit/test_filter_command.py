"""`esmd filter`: verdicts on standard output, problems on standard error, answers as exit statuses."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from node.commands.filter import filter_command

if TYPE_CHECKING:
    from pathlib import Path

PATTERN = '{"detail": {"state": ["running"]}}'


def run(*args: str, stdin: bytes = b"") -> Result:
    """Run the command as from a shell."""
    return CliRunner().invoke(filter_command, list(args), input=stdin)


def test_match() -> None:
    """A matching event is status 0 and one line."""
    result = run(PATTERN, '{"detail": {"state": "running"}}')
    assert (result.exit_code, result.stdout, result.stderr) == (0, "match\n", "")


def test_no_match_says_why() -> None:
    """An event that does not match is status 1, with a line for each field that fails."""
    result = run(PATTERN, '{"detail": {"state": "stopped"}}')
    assert result.exit_code == 1
    assert result.stdout == 'no match\n  detail.state: "stopped" does not match ["running"]\n'


@pytest.mark.parametrize("pattern", ['{"detail": "running"}', "nonsense", "[]", ""])
def test_invalid_pattern(pattern: str) -> None:
    """An invalid pattern is status 2 with the reason on standard error, whatever the event."""
    result = run(pattern, "{}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("esmd filter: invalid pattern: ")


def test_event_that_is_not_json() -> None:
    """A single event that is not JSON is bad usage, on the command line as on standard input."""
    for result in (
        run(PATTERN, "nonsense"),
        run(PATTERN, "-", stdin=b"nonsense\n"),
        run(PATTERN, "-", stdin=b"\xff\n"),
    ):
        assert (result.exit_code, result.stdout) == (2, "")
        assert "the event is not JSON" in result.stderr


def test_files(tmp_path: Path) -> None:
    """Pattern and event can come from files, also with a byte order mark."""
    pattern, event = tmp_path / "pattern.json", tmp_path / "event.json"
    pattern.write_text(PATTERN, encoding="utf-8-sig")
    event.write_text('{"detail":\n {"state": "running"}}\n', encoding="utf-8-sig")
    assert run(f"@{pattern}", f"@{event}").exit_code == 0


def test_missing_file(tmp_path: Path) -> None:
    """A file that cannot be read is bad usage and named."""
    for args in ((f"@{tmp_path}/none", "{}"), (PATTERN, f"@{tmp_path}/none")):
        result = run(*args)
        assert result.exit_code == 2
        assert f"{tmp_path}/none: No such file" in result.stderr


def test_several_events_get_a_line_each() -> None:
    """Several events are status 0 with one line each; one that is not JSON matches nothing and is told of."""
    lines = b'{"detail": {"state": "running"}}\n\n{}\nnonsense\n[]\n{"detail": {"state": ["x", "running"]}}'
    result = run(PATTERN, "-", stdin=lines)
    assert result.exit_code == 0
    assert result.stdout.split("\n") == ["match", "no match", "no match", "no match", "match", ""]
    assert result.stderr.startswith("esmd filter: line 4 is not JSON: ")


def test_single_line_counts_as_a_single_event() -> None:
    """One event on standard input has the status and the reasons of one on the command line."""
    assert run(PATTERN, "-", stdin=b'{"detail": {"state": "running"}}').exit_code == 0
    result = run(PATTERN, "-", stdin=b"{}\n\n")
    assert (result.exit_code, result.stdout) == (1, "no match\n  detail: absent\n")


def test_nothing_on_standard_input() -> None:
    """No event at all matches nothing."""
    result = run(PATTERN, "-", stdin=b"\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no event" in result.stderr


def test_command_is_cheap_to_load() -> None:
    """Loading the command loads none of the clients of sources, stores and targets."""
    check = "import sys, node.commands.filter, model.pattern; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiokafka", "aiohttp", "redis", "aioboto3", "asyncio"} & set(loaded)
