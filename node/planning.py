"""The client side of `esmd plan` and `esmd apply`: send files' mappings to a node, and show what it answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from model.problem import InvalidConfigurationError, Problem
from node.client import NodeRefusedError, call_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from config.settings import ConfiguredMapping

_PATIENCE_S = 45.0
_LONGEST = 60
_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_POSITIONS = {
    "new": "reads from its starting position",
    "kept": "the position is kept",
    "moved": "reads another topic, from its starting position",
    "forgotten": "the position is forgotten",
}


def compare(files: Sequence[Path], url: str, what: str, *, prune: bool, reset: bool) -> Any:
    """Have a node plan or apply files; return its answer.

    Raises `InvalidConfigurationError` for what is wrong with the files, also where only the node can tell, and what
    `node.client` raises.
    """
    from config.load import load  # noqa: PLC0415 - not for `esmd --help`
    from model.mapping_rules import canonical_document  # noqa: PLC0415 - same

    configured = load(files).event_source_mappings
    documents = [json.loads(canonical_document(one.document)) for one in configured]
    try:
        return call_json(
            url,
            "POST",
            f"/esmd/v1/{what}",
            {"mappings": documents, "prune": prune, "reset": reset},
            timeout_s=_PATIENCE_S,
        )
    except NodeRefusedError as error:
        problems = error.answer.get("problems") if isinstance(error.answer, dict) else None
        if not isinstance(problems, list):
            raise
        raise InvalidConfigurationError([_located(one, configured) for one in problems]) from error


def _located(problem: dict[str, str], configured: Sequence[ConfiguredMapping]) -> Problem:
    """Give a node's problem the line of its mapping."""
    path, rule = problem["path"], problem["rule"]
    for one in configured:
        name = one.mapping.name
        if path == name or path.startswith((f"{name}.", f"{name}[")):
            return Problem(path, rule, one.file, one.line)
    return Problem(path, rule)


def show(answer: dict[str, Any], *, made: bool) -> None:
    """Print differences for people."""
    for change in answer["changes"]:
        for line in _lines(change):
            click.echo(line)
    for name in answer["drifted"]:
        click.echo(f"  {name}: was changed by the API since, and stays so (--reset: as the file says)")
    counts = {kind: sum(change["change"] == kind for change in answer["changes"]) for kind in _SIGNS}
    words = [f"{count} {done if made else to_do}" for (count, to_do, done) in (
        (counts["add"], "to add", "added"),
        (counts["change"], "to change", "changed"),
        (counts["remove"], "to remove", "being removed"),
        (answer["unchanged"], "unchanged", "unchanged"),
    )]  # fmt: skip
    others = answer["others"]
    stay = f"; {len(others)} not in these files stay{'s' if len(others) == 1 else ''}" if others else ""
    click.echo(f"{', '.join(words)}{stay}")


def _lines(change: dict[str, Any]) -> Iterator[str]:
    former = f" (was {change['renamed_from']})" if change["renamed_from"] else ""
    facts = [_POSITIONS[change["position"]]] if change["position"] else []
    if change["drains"]:
        facts.append("what is under way is finished first")
    if change["remark"]:
        facts.append(change["remark"])
    yield f"{_SIGNS[change['change']]} {change['name']}{former}{': ' if facts else ''}{'; '.join(facts)}"
    for field in change["fields"]:
        yield f"    {field['name']}: {_short(field['before'])} -> {_short(field['after'])}"


def _short(value: object) -> str:
    if value is None:
        return "(default)"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
