"""A secret planted anywhere in a configuration never comes out again."""

from __future__ import annotations

import copy
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from config.load import load
from model.mapping_rules import canonical_document
from model.problem import InvalidConfigurationError
from node.commands.validate import validate_command

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-planted"

GOOD: dict[str, Any] = {
    "redis": {"url": f"redis://user:{SECRET}@127.0.0.1:6379/0"},
    "auth": {"tokens": [SECRET], "access_keys": {"AKIA": SECRET}},
    "functions": {
        "f": {"url": "https://h/", "headers": {"Authorization": f"Bearer {SECRET}", "X-Key": "${env:PLANTED}"}},
        "h": {"handler": "app.handler", "code": ".", "environment": {"TOKEN": SECRET}},
    },
    "event_source_mappings": [
        {
            "Name": "m",
            "FunctionName": "f",
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["k:1"]}},
            "Topics": ["t"],
            "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": "${env:PLANTED}"}],
        }
    ],
}
"""Every place that may hold a secret in the clear does."""

PLACES = [
    ("redis",), ("redis", "url"), ("auth",), ("auth", "tokens"), ("auth", "tokens", 0), ("auth", "access_keys"),
    ("auth", "access_keys", "AKIA"), ("functions", "f", "headers"), ("functions", "f", "headers", "Authorization"),
    ("functions", "f", "url"), ("functions", "h", "environment"), ("functions", "h", "environment", "TOKEN"),
    ("invoke", "endpoint"), ("aws", "endpoint_url"),
    ("event_source_mappings", 0, "SourceAccessConfigurations"),
    ("event_source_mappings", 0, "SourceAccessConfigurations", 0),
    ("event_source_mappings", 0, "SourceAccessConfigurations", 0, "URI"),
]  # fmt: skip
SHAPES: list[Any] = [
    SECRET, [SECRET], {"x": SECRET}, {"url": SECRET},
    [[SECRET]], {"x": [SECRET]}, f"{SECRET}\r\n", f"http://u:{SECRET}@h/",
    "x" * 9000 + SECRET, f"${{vault:{SECRET}", {"Type": "BASIC_AUTH", "URI": SECRET},
    [{"Type": "BASIC_AUTH", "URI": [SECRET]}],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", SECRET)


def _with(place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    planted = copy.deepcopy(GOOD)
    holder: Any = planted
    for key in place[:-1]:
        holder = holder.setdefault(key, {}) if isinstance(holder, dict) else holder[key]
    holder[place[-1]] = value
    return planted


def test_settings_do_not_show_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr nor str nor a log line of settings holds a secret; nor does the document for the store."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps(GOOD))
    found = load([path])
    with structlog.testing.capture_logs() as events, caplog.at_level(logging.DEBUG):
        logging.getLogger("t").info("%s %r", found, found)
        structlog.get_logger().info("settings", settings=repr(found), mapping=str(found.mappings))
    shown = f"{found!r}{found}{caplog.text}{events}" + "".join(
        canonical_document(entry.document).decode() for entry in found.event_source_mappings
    )
    assert SECRET not in shown
    assert "${env:PLANTED}" in shown


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_problems_do_not_show_secrets(tmp_path: Path, place: tuple[str | int, ...], shape: object) -> None:
    """A secret in a wrong shape or in a wrong place is not quoted by the problem it makes."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps(_with(place, shape)))
    try:
        shown = repr(load([path]))
    except InvalidConfigurationError as exc:
        shown = f"{exc}{exc!r}{exc.problems}{exc.__cause__!r}{exc.__context__!r}"
    assert SECRET not in shown


def test_validate_prints_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says OK and counts, nothing else."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps(GOOD))
    validate_command([str(path)], standalone_mode=False)
    out, err = capsys.readouterr()
    assert out == "OK: 1 file, 1 event source mapping (1 kafka), 2 functions\n"
    assert err == ""
