"""What the Lambda API says of a mapping, and what its requests make of one (spec sections 7.1 and 7.2). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from controlplane.lambda_errors import invalid, refused
from model.mapping import KafkaSource, KinesisSource, ScheduleSource, SqsSource
from model.mapping_rules import canonical_document, parse_mapping
from model.problem import InvalidConfigurationError
from model.secret import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from model.mapping import EventSourceMapping, MappingRecord

IMMUTABLE = frozenset({
    "EventSourceArn", "SelfManagedEventSource", "StartingPosition", "StartingPositionTimestamp", "Topics", "Tags",
    "Name", "UUID",
})  # fmt: skip
"""Given at creation only. Tags have calls of their own."""

_GROUPS = ("SelfManagedKafkaEventSourceConfig", "AmazonManagedKafkaEventSourceConfig")
_ONLY_KEPT = ("KMSKeyArn", "MetricsConfig", "LoggingConfig")
"""Stored and shown, and without an effect."""

_AS_GIVEN = (
    "EventSourceArn",
    "SelfManagedEventSource",
    "Topics",
    "SourceAccessConfigurations",
    "StartingPositionTimestamp",
    "KMSKeyArn",
    "ScalingConfig",
    "MetricsConfig",
    "LoggingConfig",
    "Name",
    "schedule",
    "schedule_timezone",
    "missed",
    "input",
    "extensions",
)
"""Shown as they were given, where they were given and hold anything."""


def read_body(body: bytes) -> dict[str, Any]:
    """Return a request's members, those that are null left out. Raises `ApiError`."""
    try:
        given = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise refused("InvalidRequestContentException", f"Could not parse request body into json: {exc}") from exc
    if not isinstance(given, dict):
        raise refused("InvalidRequestContentException", "Could not parse request body into json: not an object")
    return {key: value for key, value in given.items() if value is not None}


def read_mapping(document: Mapping[str, object], *, now: datetime | None = None) -> tuple[EventSourceMapping, bytes]:
    """Return the mapping of a complete document, and the document as it is stored. Raises `ApiError`."""
    try:
        return parse_mapping(document, require_name=False, now=now), canonical_document(document)
    except InvalidConfigurationError as exc:
        raise invalid(exc.problems) from exc
    except UnicodeError as exc:
        raise refused("InvalidRequestContentException", "Text must be Unicode") from exc


def changed(present: Mapping[str, Any], wish: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping's document after an update: what the wish does not name stays. Raises `ApiError`."""
    for name in IMMUTABLE & wish.keys():
        if wish[name] != present.get(name):
            raise refused("InvalidParameterValueException", f"{name} cannot be changed. Create another mapping.")
    document = {**present, **wish}
    for name in _GROUPS:
        before, after = present.get(name), wish.get(name)
        if isinstance(after, dict) and isinstance(before, dict):
            document[name] = {**before, **after}
    return document


def means_the_same(
    before: EventSourceMapping, present: Mapping[str, Any], after: EventSourceMapping, document: Mapping[str, Any]
) -> bool:
    """Whether an update changes nothing: it repeats what is, or spells out defaults."""
    return before == after and all(present.get(name) == document.get(name) for name in _ONLY_KEPT)


def check_group(before: EventSourceMapping, after: EventSourceMapping) -> None:
    """Refuse another consumer group: it would have other positions. Raises `ApiError`."""
    groups = [one.source.consumer_group_id for one in (before, after) if isinstance(one.source, KafkaSource)]
    if len(set(groups)) > 1:
        raise refused("InvalidParameterValueException", "ConsumerGroupId cannot be changed. Create another mapping.")


def local_secrets(document: Mapping[str, Any]) -> list[Any]:
    """Return what a mapping tells of secrets that are files or variables of the nodes, and to whom it would show them.

    Whoever may name both learns the secret: so where nobody is asked who he is, neither may be changed by the API.
    """
    entries = document.get("SourceAccessConfigurations") or []
    uris = [entry.get("URI") for entry in entries if isinstance(entry, dict)]
    local = [
        uri
        for uri in uris
        if isinstance(uri, str) and REFERENCE.fullmatch(uri) and not uri.startswith("${secretsmanager:")
    ]
    return [entries, document.get("SelfManagedEventSource"), document.get("EventSourceArn")] if local else []


def configuration(
    record: MappingRecord,
    document: Mapping[str, Any],
    mapping: EventSourceMapping,
    *,
    arn: str,
    function_arn: str,
    last_result: str,
) -> dict[str, Any]:
    """Return an EventSourceMappingConfiguration with AWS's defaults. `arn` is the mapping's own."""
    said = {name: document[name] for name in _AS_GIVEN if document.get(name)}
    said |= _identity(record, arn)
    said["FunctionArn"] = function_arn
    said["BatchSize"] = mapping.batch_size
    if mapping.filter_patterns:
        said["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in mapping.filter_patterns]}
    if mapping.provisioned_pollers is not None:
        pollers = mapping.provisioned_pollers
        said["ProvisionedPollerConfig"] = {"MinimumPollers": pollers.minimum, "MaximumPollers": pollers.maximum}
        if pollers.group_name:
            said["ProvisionedPollerConfig"]["PollerGroupName"] = pollers.group_name
    match mapping.source:
        case SqsSource():
            said["FunctionResponseTypes"] = _response_types(mapping)
            said["MaximumBatchingWindowInSeconds"] = int(mapping.batching_window_s)
        case KinesisSource():
            said |= _of_streams(mapping)
            said["MaximumBatchingWindowInSeconds"] = int(mapping.batching_window_s)
            said["TumblingWindowInSeconds"] = mapping.tumbling_window_s
            said["StateTransitionReason"] = record.state_reason.replace("USER_INITIATED", "User action")
            said["LastProcessingResult"] = last_result
        case ScheduleSource():
            streams = _of_streams(mapping)
            named = {"DestinationConfig", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts"}
            said |= {name: streams[name] for name in named}
            said["LastProcessingResult"] = last_result
        case KafkaSource() as source:
            # What AWS says of Kafka outside its provisioned mode, and whatever else was asked for.
            streams = _of_streams(mapping)
            named = {"StartingPosition", *(name for name in streams if document.get(name) is not None)}
            said |= {name: streams[name] for name in named}
            if "MaximumRetryAttempts" in document:  # with a destination, -1 means 10 (spec section 1.3, rule 8)
                said["MaximumRetryAttempts"] = document["MaximumRetryAttempts"]
            if "MaximumBatchingWindowInSeconds" in document:
                said["MaximumBatchingWindowInSeconds"] = int(mapping.batching_window_s)
            said[_GROUPS[source.arn is not None]] = {"ConsumerGroupId": source.consumer_group_id}
            said["LastProcessingResult"] = last_result
    return said


def unreadable(record: MappingRecord, arn: str) -> dict[str, Any]:
    """Return what can be said of a mapping whose document this version does not understand."""
    return _identity(record, arn)


def _identity(record: MappingRecord, arn: str) -> dict[str, Any]:
    return {
        "UUID": str(record.id),
        "EventSourceMappingArn": arn,
        "State": str(record.state),
        "StateTransitionReason": record.state_reason,
        "LastModified": round(record.modified_time, 3),
    }


def _of_streams(mapping: EventSourceMapping) -> dict[str, Any]:
    destination = mapping.on_failure_destination
    return {
        "StartingPosition": str(mapping.starting_position),
        "ParallelizationFactor": mapping.parallelization_factor,
        "BisectBatchOnFunctionError": mapping.bisect_on_function_error,
        "DestinationConfig": {"OnFailure": {"Destination": destination} if destination else {}},
        "FunctionResponseTypes": _response_types(mapping),
        "MaximumRecordAgeInSeconds": _or_infinite(mapping.maximum_record_age_s),
        "MaximumRetryAttempts": _or_infinite(mapping.maximum_retry_attempts),
    }


def _response_types(mapping: EventSourceMapping) -> list[str]:
    return ["ReportBatchItemFailures"] if mapping.report_batch_item_failures else []


def _or_infinite(value: int | None) -> int:
    return -1 if value is None else value
