"""`esmd mappings`: the daily operations on event source mappings, by the Lambda API of any node."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

_ROOT = "/2015-03-31/event-source-mappings"
_IN_USE = "ResourceInUseException"
_IN_USE_S = 20.0
_AGAIN_S = 0.25


@click.group("mappings")
def mappings_command() -> None:
    """List, enable, disable or delete mappings, by name or UUID."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    url = click.option(
        "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="Any node of the fleet."
    )
    return as_json(url(command))


@mappings_command.command("list")
@_options
def list_command(*, as_json: bool, url: str) -> None:
    """List all mappings with state, source and function."""
    from node.client import call_json  # noqa: PLC0415 - not for `esmd --help`

    found: list[dict[str, Any]] = []
    marker: str | None = ""
    while marker is not None:
        page = call_json(url, "GET", f"{_ROOT}?{urlencode({'Marker': marker})}" if marker else _ROOT)
        found += page["EventSourceMappings"]
        marker = page.get("NextMarker")
    if as_json:
        click.echo(json.dumps({"EventSourceMappings": found}, indent=2))
        return
    from node.printing import console  # noqa: PLC0415 - not for --json

    if not found:
        click.echo("no event source mappings", err=True)
        return
    console().print(_table(found))


@mappings_command.command("get")
@click.argument("mapping", metavar="NAME|UUID")
@_options
def get_command(mapping: str, *, as_json: bool, url: str) -> None:
    """Show a mapping as the Lambda API does."""
    document = _ask(url, "GET", mapping)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    width = max(map(len, document))
    for name, value in sorted(document.items()):
        click.echo(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value)}")


@mappings_command.command("enable")
@click.argument("mapping", metavar="NAME|UUID")
@_options
def enable_command(mapping: str, *, as_json: bool, url: str) -> None:
    """Go on reading where the mapping was stopped."""
    _say(_ask(url, "PUT", mapping, {"Enabled": True}), as_json=as_json)


@mappings_command.command("disable")
@click.argument("mapping", metavar="NAME|UUID")
@_options
def disable_command(mapping: str, *, as_json: bool, url: str) -> None:
    """Stop reading, after what is under way; the position is kept. It stays so until somebody enables it.

    Also a mapping of a node's file stays disabled, until the file asks for something else than before.
    """
    _say(_ask(url, "PUT", mapping, {"Enabled": False}), as_json=as_json)


@mappings_command.command("delete")
@click.argument("mapping", metavar="NAME|UUID")
@_options
def delete_command(mapping: str, *, as_json: bool, url: str) -> None:
    """Delete a mapping with its position and parked records, after what is under way.

    One that a file still names comes back when a node reads that file again: take it out there first.
    """
    _say(_ask(url, "DELETE", mapping), as_json=as_json)


def _ask(url: str, method: str, mapping: str, wish: object = None) -> dict[str, Any]:
    """Do something with one mapping; wait a little for one that is just changing."""
    from node.client import NodeRefusedError, call_json  # noqa: PLC0415 - not for `esmd --help`

    until = time.monotonic() + _IN_USE_S
    while True:
        try:
            document: dict[str, Any] = call_json(url, method, f"{_ROOT}/{quote(mapping, safe='')}", wish)
        except NodeRefusedError as error:
            if error.code == "ResourceNotFoundException":
                raise NodeRefusedError(f"no mapping {mapping}; `esmd mappings list` shows those there are") from error
            if error.code != _IN_USE or time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)
        else:
            return document


def _say(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{document.get('Name') or document['UUID']}  {document['State']}")


def _table(found: list[dict[str, Any]]) -> Table:
    from rich.table import Column, Table  # noqa: PLC0415 - not for --json

    from node.printing import printable  # noqa: PLC0415 - same

    short = [Column(header, no_wrap=True) for header in ("name", "uuid", "state")]
    table = Table(*short, "source", "function", "last result", box=None, header_style="bold")
    for one in found:
        cells = (
            one.get("Name"),
            one["UUID"],
            one["State"],
            one.get("EventSourceArn") or ", ".join(one.get("Topics", [])),
            one.get("FunctionArn"),
            one.get("LastProcessingResult"),
        )
        table.add_row(*(printable(cell) for cell in cells))
    return table
