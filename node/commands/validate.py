"""`esmd validate CONFIG…`: check configuration without running it.

Loads nothing but the configuration's own modules, so that editors and commit hooks can call it on every change.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from config.load import load


@click.command("validate")
@click.argument("files", metavar="CONFIG…", nargs=-1, required=True, type=click.Path(path_type=Path))
def validate_command(files: tuple[Path, ...]) -> None:
    """Check configuration files and templates; every problem with its place, exit status 2.

    Several files are checked together, as `esmd run` would take them.
    """
    # A broken configuration is raised: the exit status and the printing of problems are the group's.
    settings = load(files)
    kinds = Counter(str(mapping.source.kind) for mapping in settings.mappings)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    click.echo(
        f"OK: {_count(len(files), 'file')}, {_count(len(settings.mappings), 'event source mapping')}"
        f"{f' ({counts})' if counts else ''}, {_count(len(settings.functions), 'function')}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
