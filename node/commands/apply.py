"""`esmd apply CONFIG…`: make the changes to mappings that files ask for, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("apply")
@click.argument("files", metavar="CONFIG…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="Remove mappings that files asked for before and these do not name.")
@click.option("--reset", is_flag=True, help="Undo what the API changed since in mappings of these files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="Any node of the fleet."
)
def apply_command(files: tuple[Path, ...], *, prune: bool, reset: bool, as_json: bool, url: str) -> None:
    """Make the changes to mappings that files ask for. `esmd plan` shows them first.

    Mappings that the files do not name stay. Only mappings are sent: functions and everything else are read by each
    node from its own files.
    """
    from node.planning import compare, show  # noqa: PLC0415 - not for `esmd --help`

    answer = compare(files, url, "apply", prune=prune, reset=reset)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        show(answer, made=True)
