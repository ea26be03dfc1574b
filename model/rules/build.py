"""Make the mapping out of checked values: identity, defaults, and "infinite" as None."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from model.ids import MappingId
from model.mapping import (
    EventSource,
    EventSourceMapping,
    Extensions,
    KafkaSource,
    KinesisSource,
    MissedFirings,
    ProvisionedPollers,
    ScheduleSource,
    SourceAccess,
    SqsSource,
    StartingPosition,
)
from model.rules.checking import json_text
from model.rules.parameters import KAFKA, KINESIS_ARN, SQS, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = uuid.UUID("6b0e5a52-8f0b-5d0e-9a55-3d7c1f0f7e21")
"""Namespace of mapping ids made from names. Changing it would orphan every checkpoint."""

_KAFKA_WINDOW_S = 0.5
_BATCH_SIZES = {Source.SQS: 10, Source.FIFO: 10, Source.SCHEDULE: 1}
_RETRIES_BEFORE_DESTINATION = 10  # rule 8
_RETRIES_OF_SCHEDULE = 2  # as Lambda makes of what EventBridge hands to it (spec section 6.3)


def mapping_id(name: str) -> MappingId:
    """Return the id a mapping has by its name: the same on every node and after every restart."""
    return MappingId(str(uuid.uuid5(_NAMES, name)))


def build_mapping(values: Mapping[str, Any], source: Source) -> EventSourceMapping:
    """Return the mapping; `values` passed every check for `source`."""
    ours = Extensions(**values.get("extensions", {}))
    named = ours.renamed_from or values.get("Name", "")
    identity = MappingId(values["UUID"].lower()) if "UUID" in values else mapping_id(named)
    destination = values.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination") or None
    default_factor = ours.parallelization_factor or 1
    filters = values.get("FilterCriteria", {}).get("Filters", [])
    return EventSourceMapping(
        id=identity,
        name=values.get("Name", identity),
        function_name=values["FunctionName"],
        source=_source(values, source, identity),
        enabled=values.get("Enabled", True),
        batch_size=values.get("BatchSize", _BATCH_SIZES.get(source, 100)),
        batching_window_s=float(
            values.get("MaximumBatchingWindowInSeconds", _KAFKA_WINDOW_S if source in KAFKA else 0)
        ),
        parallelization_factor=values.get("ParallelizationFactor", default_factor),
        starting_position=_starting_position(values, source),
        starting_time=values.get("StartingPositionTimestamp"),
        filter_patterns=tuple(entry["Pattern"] for entry in filters),
        report_batch_item_failures=bool(values.get("FunctionResponseTypes")),
        on_failure_destination=destination,
        maximum_retry_attempts=_retries(values, source, destination),
        maximum_record_age_s=_finite(values.get("MaximumRecordAgeInSeconds", -1)),
        bisect_on_function_error=values.get("BisectBatchOnFunctionError", False),
        tumbling_window_s=values.get("TumblingWindowInSeconds", 0),
        maximum_concurrency=values.get("ScalingConfig", {}).get("MaximumConcurrency"),
        provisioned_pollers=_pollers(values.get("ProvisionedPollerConfig"), source),
        tags=values.get("Tags", {}),
        extensions=ours,
    )


def _source(values: Mapping[str, Any], source: Source, identity: MappingId) -> EventSource:
    if source is Source.SCHEDULE:
        return ScheduleSource(
            values["schedule"],
            values.get("schedule_timezone", "UTC"),
            MissedFirings(values.get("missed", MissedFirings.ONCE)),
            json_text(values["input"]) if "input" in values else None,
        )
    if source in SQS:
        return SqsSource(values["EventSourceArn"], fifo=source is Source.FIFO)
    if source is Source.KINESIS:
        arn: str = values["EventSourceArn"]
        form = KINESIS_ARN.fullmatch(arn)
        if form is None:
            raise ValueError(f"not the ARN of a stream: {arn}")
        return KinesisSource(form[1], consumer_arn=arn if form[2] else None)
    config = values.get("SelfManagedKafkaEventSourceConfig") or values.get("AmazonManagedKafkaEventSourceConfig") or {}
    servers = values.get("SelfManagedEventSource", {}).get("Endpoints", {}).get("KAFKA_BOOTSTRAP_SERVERS", [])
    access = values.get("SourceAccessConfigurations", [])
    return KafkaSource(
        topic=values["Topics"][0],
        consumer_group_id=config.get("ConsumerGroupId", identity),
        bootstrap_servers=tuple(servers),
        arn=values.get("EventSourceArn"),
        access=tuple(SourceAccess(entry["Type"], entry["URI"]) for entry in access),
    )


def _starting_position(values: Mapping[str, Any], source: Source) -> StartingPosition | None:
    if source in SQS or source is Source.SCHEDULE:
        return None
    return StartingPosition(values.get("StartingPosition", StartingPosition.TRIM_HORIZON))


def _retries(values: Mapping[str, Any], source: Source, destination: str | None) -> int | None:
    default = _RETRIES_OF_SCHEDULE if source is Source.SCHEDULE else -1
    retries = _finite(values.get("MaximumRetryAttempts", default))
    if retries is None and source in KAFKA and destination is not None:
        return _RETRIES_BEFORE_DESTINATION
    return retries


def _finite(value: int) -> int | None:
    return None if value == -1 else value


def _pollers(config: Mapping[str, Any] | None, source: Source) -> ProvisionedPollers | None:
    if not config:
        return None
    return ProvisionedPollers(
        minimum=config.get("MinimumPollers", 2 if source in SQS else 1),
        maximum=config.get("MaximumPollers", 200),
        group_name=config.get("PollerGroupName") or None,
    )
