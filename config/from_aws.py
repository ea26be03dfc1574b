"""Turn what Lambda says of event source mappings into a configuration file that `esmd validate` accepts. Pure.

What cannot be carried over stands in a comment above its mapping; a mapping that cannot be is a comment as a whole.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from model.mapping_rules import canonical_document, check_together, parse_mapping
from model.problem import InvalidConfigurationError
from model.rules.parameters import FUNCTION, PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model.mapping import EventSourceMapping

_TOLD_ONLY = frozenset({
    "EventSourceMappingArn", "FunctionArn", "LastModified", "LastProcessingResult", "State", "StateTransitionReason",
    "FilterCriteriaError", "ResponseMetadata",
})  # fmt: skip
"""What AWS tells of a mapping that is none of its parameters."""

_STOPPED = frozenset({"Disabled", "Disabling"})
_NOT_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_POSITION = {
    "kinesis": "the position in the stream is AWS's own: reading begins at StartingPosition; `esmd seek` moves it",
    "kafka": "the consumer group's offsets are taken over: disable the mapping in AWS first",
    "sqs": "both would read the queue: disable the mapping in AWS first",
}


def configuration(
    listed: Iterable[Mapping[str, Any]], *, region: str, tags: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """Return the text of a configuration file. `tags`: of mappings, by their ARNs; None: they were not read."""
    documents: list[EventSourceMapping] = []
    names: set[str] = set()
    parts = []
    for one in listed:
        document, remarks = _document(one, tags)
        document["Name"] = _fresh(document["Name"], names)
        mapping, problems = _checked(document, remarks)
        if mapping is not None:
            problems = _together([*documents, mapping])
        if mapping is not None and not problems:
            documents.append(mapping)
            remarks.append(_POSITION[mapping.source.kind])
            names.add(document["Name"])
        else:
            remarks.insert(0, "esmd cannot read this one:")
        parts.append(_written(document, [*remarks, *problems], off=bool(problems)))
    head = f"# From AWS Lambda in {region}. Functions stand as ARNs, which every node can call.\n"
    head += f"aws: {{region: {region}{_account(documents)}}}\n"
    return head + ("event_source_mappings:\n" + "".join(parts) if documents else "".join(parts))


def _account(mappings: Iterable[EventSourceMapping]) -> str:
    """Return the account that all functions are of, so that a listed function may take the place of one of them."""
    parts = [FUNCTION.fullmatch(mapping.function_name) for mapping in mappings]
    accounts = {found["account"] for found in parts if found is not None}
    return f', account_id: "{account}"' if len(accounts) == 1 and (account := accounts.pop()) else ""


def _document(one: Mapping[str, Any], tags: Mapping[str, Mapping[str, str]] | None) -> tuple[dict[str, Any], list[str]]:
    """Return a mapping's parameters, and what is to be said about them."""
    remarks = []
    function = str(one.get("FunctionArn", ""))
    document: dict[str, Any] = {"Name": _name(one, function), "FunctionName": function}
    for key, value in one.items():
        if key in _TOLD_ONLY or value is None or value in ({}, []):
            continue
        if key not in PARAMETERS:
            remarks.append(f"{key} has no counterpart: {value}")
        else:
            document[key] = _plain(value)
    if one.get("State") in _STOPPED:
        document["Enabled"] = False
    if "FilterCriteriaError" in one:
        remarks.append(f"FilterCriteria could not be read: {one['FilterCriteriaError']}")
    if tags is None:
        remarks.append("tags were not read: that needs lambda:ListTags")
    elif found := tags.get(str(one.get("EventSourceMappingArn"))):
        document["Tags"] = dict(found)
    return document, remarks


def _checked(document: dict[str, Any], remarks: list[str]) -> tuple[EventSourceMapping | None, list[str]]:
    """Return the mapping; parameters that its kind of source does not have go, with a remark."""
    while True:
        try:
            mapping = parse_mapping(document)
            canonical_document(document)
        except InvalidConfigurationError as exc:
            # AWS tells defaults of other sources too, such as -1 for what has no limit.
            foreign = [
                problem
                for problem in exc.problems
                if problem.path in document and problem.path not in {"Name", "FunctionName", "EventSourceArn"}
            ]
            if not foreign:
                return None, [str(problem) for problem in exc.problems]
            rules = {problem.path: problem.rule for problem in foreign}
            remarks += [f"{name} is left out: {rule}: {document.pop(name)}" for name, rule in rules.items()]
        else:
            return mapping, []


def _together(mappings: Sequence[EventSourceMapping]) -> list[str]:
    paths = [mapping.name for mapping in mappings]
    return [str(problem) for problem in check_together(mappings, paths=paths)]


def _name(one: Mapping[str, Any], function: str) -> str:
    """Return a name that says what is read by which function."""
    source = str(one.get("EventSourceArn", ""))
    what = (one.get("Topics") or [re.split(r"[:/]", source.partition("/consumer/")[0])[-1]])[0]
    parts = function.split(":")
    called = parts[6] if len(parts) > 6 else function  # noqa: PLR2004 - the function's place in its ARN
    return _NOT_NAME.sub("-", f"{what}-{called}").strip("-.")[:100] or "mapping"


def _fresh(name: str, taken: set[str]) -> str:
    number, fresh = 2, name
    while fresh in taken:
        fresh, number = f"{name}-{number}", number + 1
    return fresh


def _plain(value: object) -> object:
    """Return a value as YAML has it; times in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _written(document: dict[str, Any], remarks: Sequence[str], *, off: bool) -> str:
    """Write one entry of the list, its remarks above it; `off`: as a comment."""
    text = yaml.safe_dump([document], sort_keys=False, default_flow_style=False, width=100, allow_unicode=True)
    body = "".join(f"  {'# ' if off else ''}{line}\n" for line in text.splitlines())
    said = "".join(f"  # {' '.join(remark.split())}\n" for remark in remarks)
    return said + body
