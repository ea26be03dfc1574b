"""How pages are understood that `tests/integration/test_docs_run.py` follows."""

from __future__ import annotations

import pytest

from tests.support.doc_pages import Command, File, Left, PageError, matches, steps


def test_files_commands_and_what_they_print() -> None:
    """In the order of the page, each with its line."""
    page = (
        "Write `a/b.yaml`:\n\n```yaml\nx: 1\n```\n\n"
        "```console\n$ one \\\n    --more\nsays\n  this\n$ two & # status 3\n```\n"
    )
    assert list(steps(page)) == [
        File(3, "a/b.yaml", "x: 1\n"),
        Command(8, "one \\\n    --more", ("says", "  this"), 0),
        Command(12, "two & # status 3", (), 3),
    ]


def test_what_is_left_out_is_left_with_its_reason() -> None:
    """By a mark in the source, or where a program is missing."""
    page = "<!-- not run: needs\na cluster -->\n```console\n$ x\n```\n\n"
    page += "<!-- needs: kubectl -->\n```console\n$ kubectl\n```\n"
    assert list(steps(page, lambda _: False)) == [
        Left(3, "console", "needs a cluster", "$ x\n"),
        Left(8, "console", "no kubectl here", "$ kubectl\n"),
    ]
    assert isinstance(list(steps(page))[1], Command)


@pytest.mark.parametrize(
    "page",
    [
        "Like this:\n\n```yaml\nx: 1\n```\n",
        "In `a.yaml`, or so.\n\n```yaml\nx: 1\n```\n",
        "```console\nno command\n```\n",
        "```python\nprint()\n```\n",
    ],
)
def test_a_block_that_nobody_knows_what_to_do_with_is_an_error(page: str) -> None:
    """It would otherwise go untried."""
    with pytest.raises(PageError):
        list(steps(page))


@pytest.mark.parametrize(
    ("expected", "printed", "fits"),
    [
        ((), "anything\n", True),
        (("a  b",), "  a b \n", True),
        (("a … c",), "a 17 c\n", True),
        (("a … c",), "a 17 d\n", False),
        (("a",), "a\nb\n", False),
        (("…", "b"), "a\nx\nb\n", True),
        (("…", "b"), "a\nb\nc\n", False),
        (("…",), "", True),
        (("a.c",), "abc\n", False),
        (("a", "", "b"), "a\n\n\nb\n", True),
    ],
)
def test_what_is_printed_is_compared(expected: tuple[str, ...], printed: str, *, fits: bool) -> None:
    """Line by line, but for what the page leaves open."""
    assert matches(expected, printed) is fits
