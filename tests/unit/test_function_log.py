"""What is kept and shown of a function's output: `invocation.function_log`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from invocation.function_log import LONGEST_LINE, TAIL_BYTES, FunctionLog, LineBudget


def fed(*parts: bytes, budget: LineBudget | None = None) -> tuple[list[Any], bytes]:
    """Return the lines shown and the tail kept of an output that came in parts."""
    with capture_logs() as entries:
        log = FunctionLog("f", budget or LineBudget(), clock=lambda: 0.0)
        log.begin("the-id")
        for part in parts:
            log.feed(part)
        tail = log.end()
    return [entry["line"] for entry in entries if entry["event"] == "function.log"], tail


def test_lines_are_put_together_from_whatever_parts_they_come_in() -> None:
    """A line without an end is shown at the end; empty lines are not."""
    assert fed(b"on", b"e\ntwo\n\n", b"thr", b"ee") == (["one", "two", "three"], b"one\ntwo\n\nthree")


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_the_tail_is_the_end_of_the_output(data: bytes, cuts: list[int]) -> None:
    """Byte for byte, however it is cut."""
    places = sorted({0, len(data), *[cut for cut in cuts if cut < len(data)]})
    parts = [data[start:end] for start, end in pairwise(places)]
    assert fed(*parts)[1] == data


def test_memory_is_bounded() -> None:
    """By four kilobytes for the tail, and one long line for what has no end."""
    lines, tail = fed(*[b"x" * 60_000] * 20)
    assert len(tail) == TAIL_BYTES
    assert {len(line) for line in lines} == {LONGEST_LINE}


def test_beyond_the_budget_lines_are_counted_and_told_once_in_a_while() -> None:
    """With what they amount to; after a pause there is room again."""
    budget = LineBudget(per_s=1.0, at_once=2.0)
    lines, _ = fed(b"a\nb\ncc\ndd\n", budget=budget)
    assert lines == ["a", "b"]
    assert (budget.dropped_lines, budget.dropped_bytes) == (2, 4)
    assert budget.to_tell(5.0) is None
    assert budget.to_tell(20.0) == (2, 4)
    assert budget.to_tell(40.0) is None
    assert [budget.take(now) for now in (100.0, 100.0, 100.0, 101.0)] == [True, True, False, True]


def test_a_flood_is_looked_at_in_its_beginning_only() -> None:
    """A megabyte at once costs no work per line."""
    budget = LineBudget(at_once=10_000.0)
    lines, tail = fed(b"0123456\n" * 131_072, budget=budget)
    assert len(lines) == 4 * LONGEST_LINE // 8
    assert budget.dropped_lines == 131_072 - len(lines)
    assert tail == b"0123456\n" * 512


def test_what_terminals_obey_is_not_shown() -> None:
    """Control characters and broken text are replaced; the line ends of a traceback are blanks."""
    assert fed("Traceback:\r\xa0\xa0File\n".encode())[0] == ["Traceback:   File"]
    assert fed(b"\x1b[31mred\x07\xff\tend\n")[0] == ["\ufffd[31mred\ufffd\ufffd\tend"]


def test_lines_of_ours_stand_between_the_functions() -> None:
    """Those about a success are for debugging only."""
    with capture_logs() as entries:
        log = FunctionLog("f", LineBudget(), clock=lambda: 0.0)
        log.begin("the-id")
        log.platform_line("START")
        log.feed(b"half a line")
        log.platform_line("REPORT", failed=True)
    assert [(entry["line"], entry["log_level"]) for entry in entries] == [
        ("START", "debug"),
        ("half a line", "info"),
        ("REPORT", "info"),
    ]
    assert log.end() == b"START\nhalf a lineREPORT\n"
