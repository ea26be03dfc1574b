"""Logging."""

from __future__ import annotations

import io
import json
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from model.secret import SecretText
from node import logs


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the JSON lines written."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_utc_time() -> None:
    """Machines get a time, a level, the event's name and the data as keys."""
    out = io.StringIO()
    logs.configure("json", stream=out)
    structlog.get_logger().info("lease.acquired", shard_id="orders-3", token=7)
    (line,) = lines(out)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "event": "lease.acquired", "shard_id": "orders-3", "token": 7}


def test_people_get_a_readable_line_without_colour_in_a_file() -> None:
    """The console form has no control sequences unless it goes to a terminal."""
    out = io.StringIO()
    logs.configure("console", stream=out)
    structlog.get_logger().info("lease.acquired", shard_id="orders-3")
    assert "lease.acquired" in out.getvalue()
    assert "shard_id=orders-3" in out.getvalue()
    assert "\x1b" not in out.getvalue()


@dataclass
class Holder:
    """Something with a secret in it."""

    text: SecretText


def fail(password: str) -> None:
    """Raise an error that does not tell the password."""
    raise ValueError(len(password))


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_and_local_variables_never_show(log_format: str) -> None:
    """A secret is masked wherever it sits in the data, and a traceback shows no values."""
    out = io.StringIO()
    logs.configure(log_format, stream=out)
    log = structlog.get_logger()
    secret = SecretText("hunter2 ${env:TOKEN}")
    log.warning("a", one=secret, many=[secret], by_key={"k": secret}, held=Holder(secret), odd={(1, 2): secret})
    try:
        fail("hunter2")
    except ValueError:
        log.exception("b")
    shown = out.getvalue().replace('fail("hunter2")', "").replace('fail(\\"hunter2\\")', "")  # the source line itself
    assert "hunter2" not in shown
    assert "ValueError: 7" in out.getvalue().replace("\\n", "\n")
    assert "${env:TOKEN}" in out.getvalue()


def test_what_json_cannot_say_is_said_as_text() -> None:
    """A strange value costs its form, never the line."""
    out = io.StringIO()
    logs.configure("json", stream=out)
    structlog.get_logger().info("odd", surrogate="\ud800", huge=10**400, keys={(1, 2): 3})
    (line,) = lines(out)
    assert line["event"] == "odd"
    assert line["keys"] == "{(1, 2): 3}"
    assert line["surrogate"] == "\\ud800"


def test_debug_lines_show_only_when_asked() -> None:
    """The default level is info."""
    out = io.StringIO()
    logs.configure("json", stream=out)
    structlog.get_logger().debug("hidden")
    assert out.getvalue() == ""
    logs.configure("json", debug=True, stream=out)
    structlog.get_logger().debug("shown")
    assert [line["event"] for line in lines(out)] == ["shown"]


def test_what_libraries_warn_of_comes_out_in_the_same_form() -> None:
    """Standard library logging and warnings arrive from WARNING on, once, however often logging is set up."""
    out = io.StringIO()
    logs.configure("json", stream=io.StringIO())
    logs.configure("json", stream=out)
    logging.getLogger("somelibrary").info("hidden")
    logging.getLogger("somelibrary").warning("no broker %s", "b1")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = lines(out)
    assert (first["event"], first["level"]) == ("library.log", "warning")
    assert (first["library"], first["message"]) == ("somelibrary", "no broker b1")
    assert "DeprecationWarning: old" in second["message"]


def test_a_line_that_is_repeated_is_counted_instead() -> None:
    """Of one message text a line comes at most every half minute, with the number of those left out."""
    now = 0.0
    out = io.StringIO()
    logs.configure("json", stream=out)
    handler = logs.LibraryLines(structlog.get_logger(), repeat_s=30, clock=lambda: now)
    logger = logging.Logger("aiokafka")  # noqa: LOG001 - apart from the process's loggers
    logger.addHandler(handler)
    for attempt in range(5):
        logger.error("attempt %d failed", attempt)
    logger.error("something else")
    now = 31.0
    logger.error("attempt %d failed", 5)
    assert [(line["message"], line.get("repeated")) for line in lines(out)] == [
        ("attempt 0 failed", None),
        ("something else", None),
        ("attempt 5 failed", 4),
    ]


def test_lines_that_all_differ_do_not_use_up_memory() -> None:
    """Libraries that put values into the message text do not make the table grow without end."""
    logs.configure("json", stream=io.StringIO())
    handler = logs.LibraryLines(structlog.get_logger(), clock=lambda: 0.0)
    logger = logging.Logger("botocore")  # noqa: LOG001 - apart from the process's loggers
    logger.addHandler(handler)
    for number in range(2500):
        logger.warning(f"number {number}")  # noqa: G004 - that is the point
    assert len(handler._shown) <= 1000


class Broken(io.StringIO):
    """A pipe whose reader is gone."""

    def write(self, _text: str) -> int:
        """Fail."""
        raise BrokenPipeError

    def flush(self) -> None:
        """Fail."""
        raise BrokenPipeError


def test_a_log_that_nobody_can_read_any_more_breaks_nothing() -> None:
    """With its pipe closed or its disk full the node goes on without a log."""
    logs.configure("json", stream=Broken())
    structlog.get_logger().info("into.the.void")
