"""`esmd invoke`: calls a function through a node's front end."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from node.exits import ExitStatus

if TYPE_CHECKING:
    from node.client import Invoked


@click.command("invoke")
@click.argument("function")
@click.option(
    "--payload", type=click.File("rb"), default="-", show_default=True, help="The event, as JSON; - reads it."
)
@click.option("--log", "tail", is_flag=True, help="Show the end of the function's log, on standard error.")
@click.option("--async", "later", is_flag=True, help="Do not wait for the result.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with result, error, log and version.")
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="Any node of the fleet."
)
def invoke_command(function: str, *, payload: BinaryIO, tail: bool, later: bool, as_json: bool, url: str) -> int:
    """Call FUNCTION, a name or an ARN, with an event, and print its result.

    When the function fails, its error goes to standard error and the exit status is 1.
    """
    from node.client import invoke  # noqa: PLC0415 - not for `esmd --help`

    invoked = invoke(url, function, payload.read(), tail=tail, later=later)
    if as_json:
        click.echo(json.dumps(_document(invoked), indent=2))
    else:
        if invoked.log is not None:
            click.echo(invoked.log, err=True, nl=not invoked.log.endswith("\n"))
        if invoked.function_error is None:
            _print(invoked.payload)
    if invoked.function_error is None:
        return ExitStatus.DONE
    click.echo(f"esmd: {function}: {_error_text(invoked)}", err=True)
    return ExitStatus.FAILED


def _print(payload: bytes) -> None:
    """Write the result as it came; the line's end is for people only."""
    click.echo(payload, nl=sys.stdout.isatty() and not payload.endswith(b"\n"))


def _document(invoked: Invoked) -> dict[str, Any]:
    return {
        "payload": _json(invoked.payload),
        "function_error": invoked.function_error,
        "executed_version": invoked.executed_version,
        "request_id": invoked.request_id,
        "log": invoked.log,
    }


def _json(payload: bytes) -> Any:
    """Return what a payload says; of one that is not JSON, as a `url` may answer, its text."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode(errors="replace")


def _error_text(invoked: Invoked) -> str:
    """Return a function's error in a line that a terminal can be trusted with."""
    document = _json(invoked.payload)
    told = [document.get("errorType"), document.get("errorMessage")] if isinstance(document, dict) else [document]
    text = ": ".join(str(part) for part in told if part)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()) or "failed, and does not say why"
