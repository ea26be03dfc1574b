"""Pages as something to follow: the files they have their reader write and the commands they have him type. Pure.

- A block of YAML, Python or another language under a line that ends with "`NAME`:" is written to that file.
- A `console` block is typed, line by line; what stands below a command is what it must print. `…` stands for any text
  of a line, and a line of nothing else for any lines; how many spaces there are does not matter.
- A command with the comment `# status N` ends with that status, all others with 0.
- `<!-- not run: REASON -->` above a block says that it is not followed, and why. Without it every block is.
- `<!-- needs: PROGRAM -->` above a block has it followed where that program is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"`([\w./-]+\.\w+)`:\s*\Z")
_REASON = re.compile(r"<!-- not run: ((?:(?!-->).)+?) -->\s*\Z", re.DOTALL)
_NEEDS = re.compile(r"<!-- needs: ([\w-]+) -->\s*\Z")
_STATUS = re.compile(r"\s# status (\d+)\s*$")
_ANY = "…"


class PageError(Exception):
    """A page cannot be followed as it is written."""


class File(NamedTuple):
    """A file to write."""

    line: int
    name: str
    text: str


class Command(NamedTuple):
    """A command to type, and what it must print; nothing expected means that anything goes."""

    line: int
    text: str
    expected: tuple[str, ...]
    status: int


class Left(NamedTuple):
    """A block that is not followed."""

    line: int
    language: str
    reason: str
    text: str


Step = File | Command | Left


def steps(text: str, there: Callable[[str], bool] = lambda _program: True) -> Iterator[Step]:
    """Return what a page has its reader do; `there` tells whether a program is installed.

    Raises `PageError` for a block that is neither file nor commands nor marked.
    """
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        before, language, inside = text[: block.start()], block[1], block[2]
        if reason := _REASON.search(before):
            yield Left(line, language, " ".join(reason[1].split()), inside)
        elif (needs := _NEEDS.search(before)) and not there(needs[1]):
            yield Left(line, language, f"no {needs[1]} here", inside)
        elif language == "console":
            yield from _commands(line, inside)
        elif name := _NAME.search(before):
            yield File(line, name[1], inside)
        else:
            raise PageError(f"line {line}: nothing says what to do with this block of {language}")


def _commands(first: int, text: str) -> Iterator[Command]:
    lines = text.splitlines()
    at = 0
    if not lines or not lines[0].startswith("$ "):
        raise PageError(f"line {first + 1}: a console block begins with a command")
    while at < len(lines):
        begun, command = at, lines[at][2:]
        while command.endswith("\\"):
            at += 1
            command += "\n" + lines[at]
        at += 1
        expected = []
        while at < len(lines) and not lines[at].startswith("$ "):
            expected.append(lines[at])
            at += 1
        status = _STATUS.search(command)
        yield Command(first + 1 + begun, command, tuple(expected), int(status[1]) if status else 0)


def matches(expected: Sequence[str], printed: str) -> bool:
    """Whether a command printed what it was to print."""
    if not expected:
        return True
    there = [_spaced(line) for line in printed.splitlines() if line.strip()]
    pattern = ""
    for line in expected:
        if line.strip() == _ANY:
            pattern += r"(?:.*\n)*"
        elif line.strip():
            pattern += ".*".join(re.escape(part) for part in _spaced(line).split(_ANY)) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in there)) is not None


def _spaced(line: str) -> str:
    return " ".join(line.split())
