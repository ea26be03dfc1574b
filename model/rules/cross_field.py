"""Rules that join fields of one mapping (spec section 1.3), on values whose own shapes have been checked.

A value that was invalid is absent here, so that one mistake is reported once. Rules that need live facts are left to
those who know them: the queue's visibility timeout (rule 3), the function's timeout (rule 4, `config`), the largest
event (rule 11). Rule 7 (provisioned mode) is not applied: esmd has no mode to sell. Rule 8 is applied in `build`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.mapping import SourceKind
from model.rules.parameters import (
    KAFKA,
    NETWORK_TYPES,
    OAUTH_TYPES,
    SASL_TYPES,
    SECRET_ARN,
    SQS,
    TOPIC,
    UUID,
    Source,
)
from model.rules.wording import BAD_PATTERN, WINDOW_FOR_BIG_BATCH, unsupported
from model.schedule import InvalidScheduleError, RateSchedule, parse_schedule, read_zone
from model.secret import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from model.rules.wording import Place


_KINDS = {
    Source.KINESIS: SourceKind.KINESIS,
    Source.SQS: SourceKind.SQS,
    Source.FIFO: SourceKind.SQS,
    Source.KAFKA: SourceKind.KAFKA,
    Source.MSK: SourceKind.KAFKA,
    Source.SCHEDULE: SourceKind.SCHEDULE,
}


def check_cross_fields(
    values: Mapping[str, Any],
    source: Source | None,
    report: Callable[[Place, str], None],
    *,
    broken: frozenset[str] = frozenset(),
    now: datetime | None = None,
) -> None:
    """Report every broken rule. `values` are checked values by parameter name; `broken` names those that failed."""
    _name(values, report)
    _starting_position(values, report, broken, now)
    _tumbling_windows(values, report)
    _filters(values, source, report)
    _access(values, report)
    _destination(values, source, report)
    _pollers(values, source, report)
    _extensions(values, source, report)
    if source is Source.SCHEDULE:
        _schedule(values, report, broken)
    if source in SQS:
        _sqs_batch(values, source, report, broken)
    if source in KAFKA:
        _schema_registry(values, report)


def _name(values: Mapping[str, Any], report: Callable[[Place, str], None]) -> None:
    name = values.get("Name")
    if name is not None and UUID.fullmatch(name) and name.lower() != str(values.get("UUID", "")).lower():
        report(("Name",), "looks like a UUID, which would be taken for that of another mapping; choose another name")


def _schedule(values: Mapping[str, Any], report: Callable[[Place, str], None], broken: frozenset[str]) -> None:
    timezone = values.get("schedule_timezone", "UTC")
    try:
        read_zone(timezone)
    except InvalidScheduleError as exc:
        report(("schedule_timezone",), str(exc))
        timezone = "UTC"
    if "schedule" not in values:
        return
    try:
        schedule = parse_schedule(values["schedule"], timezone)
    except InvalidScheduleError as exc:
        report(("schedule",), str(exc))
        return
    if isinstance(schedule, RateSchedule) and "schedule_timezone" in values and "schedule_timezone" not in broken:
        report(("schedule_timezone",), "has an effect with cron(…) only: a rate is the same in every time zone")


def _sqs_batch(
    values: Mapping[str, Any], source: Source | None, report: Callable[[Place, str], None], broken: frozenset[str]
) -> None:
    if "MaximumBatchingWindowInSeconds" in broken:
        return
    window = values.get("MaximumBatchingWindowInSeconds", 0)
    if source is Source.FIFO:
        if window > 0:
            reason = f"{unsupported('MaximumBatchingWindowInSeconds')} A FIFO queue has no batching window."
            report(("MaximumBatchingWindowInSeconds",), reason)
    elif values.get("BatchSize", 10) > 10 and window < 1:  # noqa: PLR2004 - rule 1
        report(("BatchSize",), WINDOW_FOR_BIG_BATCH)


def _starting_position(
    values: Mapping[str, Any],
    report: Callable[[Place, str], None],
    broken: frozenset[str],
    now: datetime | None,
) -> None:
    time = values.get("StartingPositionTimestamp")
    at_timestamp = values.get("StartingPosition") == "AT_TIMESTAMP"
    if at_timestamp and time is None and "StartingPositionTimestamp" not in broken:
        report(("StartingPositionTimestamp",), "is required when StartingPosition is AT_TIMESTAMP")
    if time is not None and "StartingPosition" in values and not at_timestamp:
        report(("StartingPositionTimestamp",), "is allowed only when StartingPosition is AT_TIMESTAMP")
    if time is not None and now is not None and time > now:
        report(("StartingPositionTimestamp",), "must not lie in the future")


def _tumbling_windows(values: Mapping[str, Any], report: Callable[[Place, str], None]) -> None:
    if values.get("TumblingWindowInSeconds", 0) and values.get("ParallelizationFactor", 1) > 1:
        reason = "must be 1 with TumblingWindowInSeconds: the state of a window passes from batch to batch"
        report(("ParallelizationFactor",), reason)


def _filters(values: Mapping[str, Any], source: Source | None, report: Callable[[Place, str], None]) -> None:
    criteria = values.get("FilterCriteria")
    if not criteria or not criteria.get("Filters"):
        return
    from model.pattern import InvalidPatternError, check_pattern, compile_pattern  # noqa: PLC0415 - only mappings with filters pay for it

    kind = _KINDS.get(source) if source is not None else None
    for i, entry in enumerate(criteria["Filters"]):
        pattern = entry.get("Pattern")
        if pattern is None:
            continue
        try:
            if kind is None:
                compile_pattern(pattern)
            else:
                check_pattern(pattern, kind)
        except InvalidPatternError as exc:
            report(("FilterCriteria", "Filters", i, "Pattern"), f"{BAD_PATTERN} {exc}".rstrip())


def _access(values: Mapping[str, Any], report: Callable[[Place, str], None]) -> None:
    entries = values.get("SourceAccessConfigurations") or []
    seen: list[str] = []
    for i, entry in enumerate(entries):
        at: Place = ("SourceAccessConfigurations", i)
        kind, uri = entry.get("Type"), entry.get("URI")
        if kind is None or uri is None:
            continue
        if kind in OAUTH_TYPES:
            report(
                (*at, "Type"), f"{kind} is not supported by esmd; use {', '.join(SASL_TYPES)} or a client certificate"
            )
        elif kind in NETWORK_TYPES:
            if not uri.startswith(NETWORK_TYPES[kind]):
                report((*at, "URI"), f"must start with {NETWORK_TYPES[kind]}")
        else:
            if not is_secret_reference(uri):
                report(
                    (*at, "URI"),
                    "must be ${env:NAME}, ${file:PATH}, ${secretsmanager:ARN} or a secret's ARN, never the secret",
                )
            if kind in seen:
                report((*at, "Type"), f"{kind} is listed twice")
            elif kind in SASL_TYPES and any(other in SASL_TYPES for other in seen):
                report((*at, "Type"), "only one of " + ", ".join(SASL_TYPES) + " can be used")
        seen.append(kind)


def is_secret_reference(uri: str) -> bool:
    """Whether a URI only says where a secret is."""
    return bool(REFERENCE.fullmatch(uri) or SECRET_ARN.fullmatch(uri))


def _destination(values: Mapping[str, Any], source: Source | None, report: Callable[[Place, str], None]) -> None:
    destination: str | None = values.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    at = ("DestinationConfig", "OnFailure", "Destination")
    if not destination:
        return
    if destination.startswith("kafka://"):
        topic = destination.removeprefix("kafka://")
        if source not in KAFKA and source is not None:
            report(at, "kafka://TOPIC is a destination for Kafka sources only")
        elif not TOPIC.fullmatch(topic) or len(topic) > 249:  # noqa: PLR2004 - the longest topic name
            report(at, "must name a topic after kafka://")
        elif topic in values.get("Topics", []):
            report(at, "must be another topic than the source's")
    elif destination.endswith(".fifo") and ":s3:" not in destination:
        report(at, "FIFO queues and FIFO topics are not supported as destination")


def _pollers(values: Mapping[str, Any], source: Source | None, report: Callable[[Place, str], None]) -> None:
    pollers = values.get("ProvisionedPollerConfig")
    if not pollers:
        return
    if "MaximumConcurrency" in values.get("ScalingConfig", {}):
        report(
            ("ScalingConfig", "MaximumConcurrency"), "MaximumConcurrency and ProvisionedPollerConfig exclude each other"
        )
    minimum = pollers.get("MinimumPollers", 2 if source in SQS else 1)
    if minimum > pollers.get("MaximumPollers", 200):
        report(("ProvisionedPollerConfig", "MaximumPollers"), "MaximumPollers must not be less than MinimumPollers")


def _extensions(values: Mapping[str, Any], source: Source | None, report: Callable[[Place, str], None]) -> None:
    ours = values.get("extensions", {})
    theirs = values.get("ParallelizationFactor")
    if source in KAFKA and theirs is not None and ours.get("parallelization_factor", theirs) != theirs:
        report(("extensions", "parallelization_factor"), "contradicts ParallelizationFactor; give one of them")
    if not ours.get("park_failing_keys", False):
        if "park_after" in ours:
            report(("extensions", "park_after"), "has an effect only with park_failing_keys: true")
    elif values.get("TumblingWindowInSeconds", 0):
        reason = "not with TumblingWindowInSeconds: the state of a window passes through the records of all keys"
        report(("extensions", "park_failing_keys"), reason)
    elif not ours.get("visibility_heartbeat", True):
        report(("extensions", "visibility_heartbeat"), "must be on with park_failing_keys: it keeps messages hidden")


def _schema_registry(values: Mapping[str, Any], report: Callable[[Place, str], None]) -> None:
    for name in ("SelfManagedKafkaEventSourceConfig", "AmazonManagedKafkaEventSourceConfig"):
        if values.get(name, {}).get("SchemaRegistryConfig"):
            report((name, "SchemaRegistryConfig"), "schema registries are not supported by esmd")
