"""`esmd filter`: hold an event against an EventBridge pattern, and say why it does not match.

The pattern is held against the event itself, as EventBridge does it; the rules by source for records that are not JSON
are `pollers.filtering`'s. The answers are exit statuses: 0 match, 1 no match, 2 invalid pattern or event.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.pattern import Pattern

_MATCH, _NO_MATCH, _INVALID = 0, 1, 2


@click.command("filter")
@click.argument("pattern")
@click.argument("event")
@click.pass_context
def filter_command(ctx: click.Context, *, pattern: str, event: str) -> None:
    """Test whether EVENT matches the EventBridge pattern PATTERN, and why not.

    Both are JSON text, or @FILE to read it from a file. With - as EVENT, each line of standard input is an event.

    One event: `match` and status 0, or `no match`, the reasons and status 1. Several: a line each, status 0.
    An invalid pattern is status 2.
    """
    from model.pattern import compile_pattern  # noqa: PLC0415 - loaded only when the command runs

    try:
        compiled = compile_pattern(_text(ctx, pattern).decode("utf-8-sig"))
    except ValueError as error:
        _fail(ctx, f"invalid pattern: {error}")
    if event == "-":
        ctx.exit(_filter_lines(ctx, compiled))
    try:
        ctx.exit(_filter_one(compiled, _text(ctx, event)))
    except ValueError as error:
        _fail(ctx, f"the event is not JSON: {error}")


def _filter_one(pattern: Pattern, text: bytes) -> int:
    """Print the verdict on the only event, with its reasons. Raises ValueError."""
    reasons = _reasons(pattern, text)
    click.echo("no match" if reasons else "match")
    for reason in reasons:
        click.echo(f"  {reason}")
    return _NO_MATCH if reasons else _MATCH


def _filter_lines(ctx: click.Context, pattern: Pattern) -> int:
    """Print a verdict for each line as it comes; a single line is treated as a single event."""
    lines = _events()
    first = next(lines, None)
    if first is None:
        click.echo("esmd filter: no event on standard input", err=True)
        return _NO_MATCH
    second = next(lines, None)
    if second is None:
        try:
            return _filter_one(pattern, first[1])
        except ValueError as error:
            _fail(ctx, f"the event is not JSON: {error}")
    _verdict(pattern, *first)
    _verdict(pattern, *second)
    for number, line in lines:
        _verdict(pattern, number, line)
    return _MATCH


def _verdict(pattern: Pattern, number: int, line: bytes) -> None:
    """Print one of many verdicts. A line that is not JSON matches nothing, and is told of."""
    try:
        reasons = _reasons(pattern, line)
    except ValueError as error:
        click.echo(f"esmd filter: line {number} is not JSON: {error}", err=True)
        reasons = ["not JSON"]
    click.echo("no match" if reasons else "match")


def _reasons(pattern: Pattern, text: bytes) -> list[str]:
    from model.pattern import decode_document  # noqa: PLC0415 - loaded only when the command runs

    return pattern.explain(decode_document(text.removeprefix(b"\xef\xbb\xbf")))


def _events() -> Iterator[tuple[int, bytes]]:
    """Yield the lines of standard input that are not blank, with their numbers."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        if line.strip():
            yield number, line


def _text(ctx: click.Context, argument: str) -> bytes:
    """Return the JSON text given, or that of the file named after an @."""
    if not argument.startswith("@"):
        return argument.encode(errors="surrogateescape")
    try:
        return Path(argument[1:]).read_bytes()
    except OSError as error:
        _fail(ctx, f"{argument[1:]}: {error.strerror}")


def _fail(ctx: click.Context, message: str) -> NoReturn:
    click.echo(f"esmd filter: {message}", err=True)
    ctx.exit(_INVALID)
