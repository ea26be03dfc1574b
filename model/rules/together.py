"""Rules that join mappings: names, identities, duplicates (spec section 1.3, rule 10) and consumer groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from model.mapping import KafkaSource, KinesisSource, ScheduleSource, SqsSource
from model.problem import Problem, child_path
from model.rules.parameters import FUNCTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.mapping import EventSource, EventSourceMapping


def check_together(mappings: Sequence[EventSourceMapping], *, paths: Sequence[str] = ()) -> list[Problem]:
    """Return what is wrong among mappings that are each right; a problem stands at the later one.

    `paths` are the mappings' own paths, in the same order; without them the names stand in.
    """
    problems: list[Problem] = []
    by_source: dict[object, list[EventSourceMapping]] = {}
    names: set[str] = set()
    listed = {mapping.name for mapping in mappings}
    ids: dict[str, EventSourceMapping] = {}
    groups: dict[str, EventSourceMapping] = {}
    for i, mapping in enumerate(mappings):
        path = paths[i] if paths else mapping.name
        if mapping.name in names:
            problems.append(Problem(child_path(path, "Name"), f"another mapping has the name {mapping.name}"))
        elif mapping.id in ids:
            taken = f"the mapping {ids[mapping.id].name} has the UUID {mapping.id}"
            problems.append(Problem(child_path(path, "UUID"), taken))
        former = mapping.extensions.renamed_from
        if former in listed:
            problems.append(Problem(f"{path}.extensions.renamed_from", f"there is still a mapping {former}"))
        if isinstance(mapping.source, KafkaSource):
            group = mapping.source.consumer_group_id
            if group in groups and mapping.id != groups[group].id:
                rule = f"the mapping {groups[group].name} has the ConsumerGroupId {group}; it must be unique"
                problems.append(Problem(child_path(path, _group_parameter(mapping.source)), rule))
            groups.setdefault(group, mapping)
        peers = by_source.setdefault(_source_key(mapping), [])
        message = next((found for peer in peers if (found := duplicate_message(peer, mapping))), None)
        if message is not None and mapping.name not in names:
            problems.append(Problem(path, message))
        peers.append(mapping)
        names.add(mapping.name)
        ids.setdefault(mapping.id, mapping)
    return problems


def duplicate_message(existing: EventSourceMapping, new: EventSourceMapping) -> str | None:
    """Return AWS's message when `new` repeats the source and function of `existing`, another mapping."""
    if existing.id == new.id or not same_function(existing.function_name, new.function_name):
        return None
    if isinstance(new.source, ScheduleSource) or not _same_source(existing.source, new.source):
        return None  # a function may have any number of schedules
    mend = f"already exists. Please update or delete the existing mapping with UUID {existing.id}"
    match new.source:
        case KinesisSource():
            arn = new.source.consumer_arn or new.source.arn
            return f'The event source arn (" {arn} ") and function (" {new.function_name} ") provided mapping {mend}'
        case SqsSource():
            which = f'SQS arn (" {new.source.arn} ") and function (" {new.function_name} ")'
            return f"An event source mapping with {which} {mend}"
        case KafkaSource():
            where = new.source.arn or ",".join(new.source.bootstrap_servers)
            which = f'event source ("{where}"), function ("{new.function_name}"), topics ("{new.source.topic}")'
            return f"An event source mapping with {which} {mend}"
        case _:
            assert_never(new.source)


def _source_key(mapping: EventSourceMapping) -> object:
    # Narrow enough that looking for duplicates among thousands of mappings stays quick.
    match mapping.source:
        case KafkaSource() as source:
            return source.topic
        case ScheduleSource() as source:
            return source.expression
        case source:
            return source.arn


def _group_parameter(source: KafkaSource) -> str:
    return "SelfManagedKafkaEventSourceConfig" if source.arn is None else "AmazonManagedKafkaEventSourceConfig"


def _same_source(one: EventSource, other: EventSource) -> bool:
    if isinstance(one, KafkaSource) and isinstance(other, KafkaSource):
        same_cluster = one.arn == other.arn if one.arn else bool({*one.bootstrap_servers} & {*other.bootstrap_servers})
        return same_cluster and one.topic == other.topic
    return one == other


def same_function(one: str, other: str) -> bool:
    """Whether two names, partial ARNs or ARNs mean the same function and qualifier."""
    # A name, a partial ARN and a full ARN may mean one function: only what both of them state can differ.
    a, b = FUNCTION.fullmatch(one), FUNCTION.fullmatch(other)
    if a is None or b is None:
        return one == other
    if (a["name"], a["qualifier"]) != (b["name"], b["qualifier"]):
        return False
    accounts = {a["account"] or a["account_only"], b["account"] or b["account_only"]} - {None}
    return len(accounts) < 2 and len({a["region"], b["region"]} - {None}) < 2  # noqa: PLR2004 - both state it, differently
