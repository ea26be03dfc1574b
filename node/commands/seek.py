"""`esmd seek`: move a mapping's position, by asking a node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S = 120.0  # the node waits a minute for the move, and looks up places before


@click.command("seek")
@click.argument("mapping")
@click.option(
    "--to",
    required=True,
    metavar="PLACE",
    help="trim_horizon, latest, a time (2026-05-01T10:00Z or epoch seconds), or SHARD=POSITION.",
)
@click.option("--shard", help="Only this shard. Those that came of it by a reshard follow.")
@click.option("--force", is_flag=True, help="Also when unread records are passed over: nobody delivers them then.")
@click.option("--dry-run", is_flag=True, help="Say what would become of each shard, and move nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="Any node of the fleet."
)
def seek_command(
    mapping: str, *, to: str, shard: str | None, force: bool, dry_run: bool, as_json: bool, url: str
) -> int:
    """Move the position of MAPPING, a name or an id, whether it runs or is stopped.

    What is under way is finished first; then reading goes on at the new place. Records that were delivered before are
    delivered again. Exit status 1: the wish stands, and no node has met it yet.
    """
    from model.errors import RefusedError  # noqa: PLC0415 - not for `esmd --help`
    from node.client import call_json, mapping_path  # noqa: PLC0415 - same
    from pollers.seeking import parse_place  # noqa: PLC0415 - same

    try:
        parse_place(to, now_ms=float("inf"))
    except RefusedError as error:
        raise click.BadParameter(str(error), param_hint="--to") from error
    asked = {"to": to, "shard": shard, "force": force, "dry_run": dry_run}
    answer = call_json(url, "POST", mapping_path(mapping, "seek"), asked, timeout_s=_PATIENCE_S)
    click.echo(json.dumps(answer, indent=2) if as_json else "\n".join(_told(answer)))
    return 0 if answer["done"] or answer["dry_run"] else 1


def _told(answer: dict[str, Any]) -> Iterator[str]:
    """Say what became of each shard, and what it came to."""
    for one in answer["shards"]:
        if one["stays"]:
            yield f"{one['id']}  stays at {one['now']}"
            continue
        skips = one["skipped_records"]
        passes = "" if skips == 0 else f"  passes over {'unread records' if skips is None else f'{skips:,} unread'}"
        why = "  follows the shard it came from" if one["follows"] else ""
        yield f"{one['id']}  {one['was'] or 'not begun'} -> {one['now']}{passes}{why}"
    moving = sum(not one["stays"] for one in answer["shards"])
    what = f"{moving:,} of {len(answer['shards']):,} shards"
    if answer["dry_run"]:
        yield f"{answer['mapping']}: {what} would move"
    elif answer["done"]:
        yield f"{answer['mapping']}: {what} moved"
    else:
        yield f"{answer['mapping']}: {what} to be moved, as soon as the fleet's pollers get to it"
