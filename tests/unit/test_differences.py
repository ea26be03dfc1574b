"""What plans are said to come to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.differences import FieldDifference, describe, differences, refused_change
from controlplane.mappings import Desired, plan
from model.mapping import MappingState
from model.mapping_rules import canonical_document, parse_mapping

if TYPE_CHECKING:
    from controlplane.mappings import Change
    from model.mapping import MappingRecord

STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/"
KINESIS: dict[str, Any] = {
    "Name": "clicks", "EventSourceArn": STREAM + "a", "FunctionName": "f", "StartingPosition": "LATEST",
}  # fmt: skip
SQS: dict[str, Any] = {
    "Name": "mails",
    "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:mails",
    "FunctionName": "f",
}
KAFKA: dict[str, Any] = {
    "Name": "orders",
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["h:1"]}},
    "Topics": ["orders"],
    "FunctionName": "f",
}


def desired(document: dict[str, Any]) -> Desired:
    """Make a wish of a document."""
    mapping = parse_mapping(document)
    name = mapping.extensions.renamed_from
    return Desired(mapping.id, mapping.name, canonical_document(document), mapping.enabled, name)


def stored(document: dict[str, Any], state: MappingState = MappingState.ENABLED) -> MappingRecord:
    """Return the record of a mapping that a file asked for."""
    (change,) = plan([], [desired(document)])
    return replace(change.record, revision=1, state=state)


def change(before: dict[str, Any], after: dict[str, Any], state: MappingState = MappingState.ENABLED) -> Change:
    """Return the one change that leads from a document to another."""
    (found,) = plan([stored(before, state)], [desired(after)])
    return found


def test_a_change_names_its_parameters() -> None:
    """Before and after, None where AWS's default holds; what is under way is drained, the position is kept."""
    told = describe(change(KINESIS, {**KINESIS, "BatchSize": 7}))
    assert (told.change, told.name, told.drains, told.position) == ("change", "clicks", True, "kept")
    assert told.fields == [FieldDifference("BatchSize", None, 7)]


@pytest.mark.parametrize(
    ("before", "after", "drains", "position"),
    [
        (KINESIS, {**KINESIS, "Tags": {"a": "b"}}, False, "kept"),
        (KINESIS, {**KINESIS, "BatchSize": 100}, False, "kept"),
        (KINESIS, {**KINESIS, "EventSourceArn": f"{STREAM}a/consumer/c:1"}, True, "kept"),
        (KAFKA, {**KAFKA, "Topics": ["others"]}, True, "moved"),
        (KAFKA, {**KAFKA, "Name": "new", "extensions": {"renamed_from": "orders"}}, True, "kept"),
        (SQS, {**SQS, "BatchSize": 3}, True, None),
    ],
)
def test_what_a_change_does_to_the_flow(
    before: dict[str, Any], after: dict[str, Any], *, drains: bool, position: str | None
) -> None:
    """Tags and defaults disturb nobody; another topic has other positions; a queue has none."""
    told = describe(change(before, after))
    assert (told.drains, told.position) == (drains, position)
    assert not describe(change(before, after, MappingState.DISABLED)).drains


def test_additions_and_removals() -> None:
    """What is new begins at its starting position, what goes is forgotten, the others are named."""
    present = [stored(KINESIS), stored(SQS), stored({**KAFKA, "Name": "elsewhere"})]
    told = differences(plan(present, [desired(KINESIS), desired(KAFKA)], gone={"mails"}), present, {"clicks", "orders"})
    assert [(one.change, one.name, one.position) for one in told.changes] == [
        ("add", "orders", "new"),
        ("remove", "mails", None),
    ]
    assert (told.unchanged, told.others) == (1, ["elsewhere"])


def test_a_starting_position_has_no_effect_where_there_is_a_checkpoint() -> None:
    """The plan says so."""
    told = describe(change(KINESIS, {**KINESIS, "StartingPosition": "TRIM_HORIZON"}))
    assert told.remark == "the starting position is for shards without a checkpoint only"


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (KINESIS, {**KINESIS, "EventSourceArn": STREAM + "b"}, True),
        (KINESIS, {**KINESIS, "EventSourceArn": f"{STREAM}a/consumer/c:1"}, False),
        (KINESIS, {**KAFKA, "Name": "clicks"}, True),
        (KAFKA, {**KAFKA, "Topics": ["others"]}, False),
        (SQS, {**SQS, "EventSourceArn": SQS["EventSourceArn"] + "2"}, False),
    ],
)
def test_positions_are_never_taken_for_those_of_another_stream(
    before: dict[str, Any], after: dict[str, Any], *, refused: bool
) -> None:
    """Shards of all streams have the same names, so a mapping keeps its stream."""
    assert (refused_change(change(before, after)) is not None) == refused
