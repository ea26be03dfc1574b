"""`esmd status`: mappings, shards, owners, checkpoints and lag of the whole fleet, as any of its nodes knows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType
    from rich.text import Text


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="Any node of the fleet."
)
def status_command(*, as_json: bool, url: str) -> None:
    """Show mappings, shards, owners, checkpoints and lag.

    Asks any node of the fleet; ESMD_TOKEN holds the token of one that wants it.
    """
    from node.client import NodeRefusedError, get_json  # noqa: PLC0415 - not for `esmd --help`

    document = get_json(url, "/esmd/v1/status")
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from node.printing import console  # noqa: PLC0415 - not for --json

    try:
        renderables = list(render(document))
    except (KeyError, TypeError, AttributeError) as error:
        raise NodeRefusedError(f"the node at {url} speaks another version of esmd: use --json") from error
    out = console()
    for renderable in renderables:
        out.print(renderable)


def render(document: dict[str, Any]) -> Iterable[RenderableType]:
    """Lay the document out for people."""
    from rich.table import Table  # noqa: PLC0415 - not for --json

    nodes = Table("node", "roles", _right("shards"), _right("heartbeat"), box=None, header_style="bold")
    for node in document["nodes"]:
        name = _text(node["id"], "bold" if node["id"] == document["node"] else "")
        nodes.add_row(
            name, _text(", ".join(node["roles"])), str(node["shards"]), f"{node['heartbeat_age_s']:.1f} s ago"
        )
    yield nodes
    if told := _waiting_events(document.get("async_invoke")):
        yield _text(f"\nasynchronous invocations: {told}")
    if not document["mappings"]:
        yield _text("\nno event source mappings", "dim")
    for mapping in document["mappings"]:
        yield ""
        yield from _mapping(mapping)


def _waiting_events(queue: dict[str, Any] | None) -> str:
    """Say how much waits, if anything does. Older nodes do not tell."""
    if not queue or not queue["events"]:
        return ""
    oldest_s = queue["oldest_age_s"] or 0.0
    return f"{queue['events']:,} events, {queue['bytes']:,} bytes, the oldest {oldest_s:,.1f} s old"


def _mapping(mapping: dict[str, Any]) -> Iterable[RenderableType]:
    from rich.table import Table  # noqa: PLC0415 - not for --json
    from rich.text import Text  # noqa: PLC0415 - same

    result = mapping["last_processing_result"]
    yield Text.assemble(
        _text(mapping["name"], "bold"),
        "  ",
        _text(mapping["state"], "green" if mapping["state"] == "Enabled" else "yellow"),
        Text(", seeking" if mapping.get("seeking") else "", "yellow"),
        "  ",
        _text(result, "red" if result.startswith("PROBLEM") else ""),
        "  ",
        _text(mapping["uuid"], "dim"),
    )
    from node.printing import STATE_STYLES, the_circuit  # noqa: PLC0415 - same

    if told := the_circuit(mapping.get("circuit")):
        yield _text(f"  {told}", "yellow")
    ledger = mapping["ledger"]
    counts = ", ".join(f"{name.replace('_', ' ')} {ledger[name]:,}" for name in ledger if name != "balanced")
    yield _text(f"  {counts}")
    if not ledger["balanced"]:
        yield _text("  the ledger does not balance: records are unaccounted for", "bold red")
    shards = Table(
        *("  shard", "state", "owner"),
        *(_right("token"), _right("checkpoint"), _right("lag"), _right("lag s")),
        "last error, or remark",
        box=None,
        header_style="dim",
    )
    for shard in mapping["shards"]:
        shards.add_row(
            _text(f"  {shard['id']}"),
            _text(shard["state"], STATE_STYLES.get(shard["state"], "")),
            _text(shard["owner"]),
            str(shard["fencing_token"] or "-"),
            _text(shard["checkpoint"]),
            "-" if shard["lag_records"] is None else f"{shard['lag_records']:,}",
            "-" if shard["lag_s"] is None else f"{shard['lag_s']:,.1f}",
            _remark(shard),
        )
    if mapping["shards"]:
        yield shards
    yield from _parked(mapping["shards"])


def _remark(shard: dict[str, Any]) -> Text:
    """Say what is the matter with a shard, or what is worth knowing."""
    if shard["last_error"]:
        return _text(shard["last_error"], "red")
    if shard.get("next_firing"):
        return _text(f"next firing {shard['next_firing']}")
    return _text(shard.get("remark") or "", "yellow")


def _parked(shards: Sequence[dict[str, Any]]) -> Iterable[RenderableType]:
    """Show which keys are parked, and why."""
    from rich.table import Table  # noqa: PLC0415 - not for --json

    parked = Table("  parked key", "shard", *map(_right, ("records", "for", "errors")), "last error", box=None)
    parked.header_style = "dim"
    for shard in shards:
        for key in shard["parked_keys"]:
            parked.add_row(
                _text(f"  {key['key']}"),
                _text(shard["id"]),
                f"{key['records']:,}",
                f"{key['age_s']:,.0f} s",
                f"{key['failures']:,}",
                _text(key["last_error"] or "", "red"),
            )
    if parked.row_count:
        yield parked


def _right(header: str) -> Any:
    from rich.table import Column  # noqa: PLC0415 - not for --json

    return Column(header, justify="right")


def _text(value: str | None, style: str = "") -> Text:
    from node.printing import printable  # noqa: PLC0415 - not for --json

    return printable(value, style)
