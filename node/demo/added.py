"""Functions of a file that run beside the demo's own: which they are, and what became of their events. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from invocation.settings import HandlerFunction
from model.mapping import SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from config.settings import ConfiguredMapping, Settings
    from node.demo.function import Tally

KINDS = (SourceKind.KAFKA, SourceKind.KINESIS, SourceKind.SQS, SourceKind.SCHEDULE)


@dataclass(frozen=True, slots=True)
class AddedFunction:
    """A function of the file, and its mappings there by the kinds of their sources."""

    name: str
    runtime: str  # of the sandbox, or `elsewhere`
    mappings: Mapping[str, SourceKind] = field(default_factory=dict)
    missing: str | None = None  # why it cannot run on this machine


@dataclass(frozen=True, slots=True)
class FunctionView:
    """What a function of the file has done."""

    function: AddedFunction
    calls: int = 0
    errors: int = 0  # calls that failed, wholly or in part
    delivered: Mapping[SourceKind, int] = field(default_factory=dict)  # of the sources that it has


def added_functions(settings: Settings, file: str, missing: Mapping[str, str]) -> tuple[AddedFunction, ...]:
    """Return the functions that the mappings of a file name, in their order. `missing` says by name what cannot run."""
    found: dict[str, dict[str, SourceKind]] = {}
    for configured in of_file(settings, file):
        mapping = configured.mapping
        found.setdefault(mapping.function_name, {})[mapping.name] = mapping.source.kind
    return tuple(
        AddedFunction(name, _runtime(settings, name), mappings, missing.get(name)) for name, mappings in found.items()
    )


def of_file(settings: Settings, file: str) -> list[ConfiguredMapping]:
    """Return the mappings that stand in a file."""
    return [configured for configured in settings.event_source_mappings if configured.file == file]


def reduced(document: Mapping[str, Any], missing: Iterable[str]) -> dict[str, Any]:
    """Return a configuration without the functions that cannot run and their mappings."""
    left_out = frozenset(missing)
    functions = {name: entry for name, entry in (document.get("functions") or {}).items() if name not in left_out}
    mappings = [one for one in document.get("event_source_mappings") or [] if one.get("FunctionName") not in left_out]
    return {**document, "functions": functions, "event_source_mappings": mappings}


def views(
    functions: Sequence[AddedFunction], status: Mapping[str, Any], tallies: Mapping[str, Tally]
) -> tuple[FunctionView, ...]:
    """Return what the functions have done, out of the node's status document and the tallies by mapping."""
    delivered = {mapping["name"]: mapping["ledger"]["delivered"] for mapping in status["mappings"]}
    made = []
    for function in functions:
        by_kind: dict[SourceKind, int] = {}
        for name, kind in function.mappings.items():
            by_kind[kind] = by_kind.get(kind, 0) + delivered.get(name, 0)
        own = [tallies[name] for name in function.mappings if name in tallies]
        made.append(FunctionView(function, sum(one.calls for one in own), sum(one.errors for one in own), by_kind))
    return tuple(made)


def told(view: FunctionView) -> dict[str, Any]:
    """Return a function's part of the document that `demo --json` ends with."""
    function = view.function
    return {
        "name": function.name,
        "runtime": function.runtime,
        "calls": view.calls,
        "errors": view.errors,
        "delivered": {kind.value: view.delivered[kind] for kind in KINDS if kind in view.delivered},
        "missing": function.missing,
    }


def _runtime(settings: Settings, name: str) -> str:
    function = settings.target_for(name)
    return function.runtime if isinstance(function, HandlerFunction) else "elsewhere"
