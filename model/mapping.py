"""The event source mapping as a value, after every rule of the specification (section 1) has been checked.

`model.mapping_rules` makes these from documents with AWS's property names; nothing else should.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from model.ids import MappingId


class StartingPosition(StrEnum):
    """Where reading starts when there is no checkpoint."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"


class SourceKind(StrEnum):
    """The kinds of event source; the values are the `source` label of metrics."""

    KINESIS = "kinesis"
    SQS = "sqs"
    KAFKA = "kafka"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class KinesisSource:
    """A stream, or a stream consumer (enhanced fan-out)."""

    arn: str
    consumer_arn: str | None = None
    kind: SourceKind = field(default=SourceKind.KINESIS, init=False)


@dataclass(frozen=True, slots=True)
class SqsSource:
    """A queue."""

    arn: str
    fifo: bool
    kind: SourceKind = field(default=SourceKind.SQS, init=False)


@dataclass(frozen=True, slots=True)
class SourceAccess:
    """One entry of SourceAccessConfigurations. `uri` is the reference as written, never the secret."""

    type: str
    uri: str


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """One topic of a self-managed cluster, or of MSK when `arn` is set."""

    topic: str
    consumer_group_id: str
    bootstrap_servers: tuple[str, ...] = ()
    arn: str | None = None
    access: tuple[SourceAccess, ...] = ()
    kind: SourceKind = field(default=SourceKind.KAFKA, init=False)


class MissedFirings(StrEnum):
    """What becomes of firings that nobody was there for."""

    ONCE = "once"  # one firing stands for all of them
    SKIP = "skip"  # nothing; the next one is on time


@dataclass(frozen=True, slots=True)
class ScheduleSource:
    """A schedule: `model.schedule` reads it."""

    expression: str
    timezone: str = "UTC"
    missed: MissedFirings = MissedFirings.ONCE
    input: bytes | None = None  # the event, JSON; None: EventBridge's "Scheduled Event"
    kind: SourceKind = field(default=SourceKind.SCHEDULE, init=False)


EventSource = KinesisSource | SqsSource | KafkaSource | ScheduleSource


@dataclass(frozen=True, slots=True)
class ProvisionedPollers:
    """ProvisionedPollerConfig."""

    minimum: int
    maximum: int
    group_name: str | None = None


@dataclass(frozen=True, slots=True)
class Extensions:
    """Ours, under `extensions` in a mapping. Defaults give AWS's behaviour or better."""

    parallelization_factor: int | None = None  # Kafka: ordered lanes per record key inside a partition
    park_failing_keys: bool = False
    park_after: int | None = None  # function errors of one record before its key is parked
    parked_max_bytes: int = 8 * 1024 * 1024
    visibility_heartbeat: bool = True
    destination_payload: bool = False
    destination_required: bool = True
    renamed_from: str | None = None  # the mapping of this name before, whose positions it keeps


@dataclass(frozen=True, slots=True)
class EventSourceMapping:
    """One mapping, complete with defaults. -1 and absent ("infinite") are None here."""

    id: MappingId
    name: str
    function_name: str
    source: EventSource
    enabled: bool = True
    batch_size: int = 100
    batching_window_s: float = 0.0
    parallelization_factor: int = 1
    starting_position: StartingPosition | None = None
    starting_time: datetime | None = None
    filter_patterns: tuple[str, ...] = ()
    report_batch_item_failures: bool = False
    on_failure_destination: str | None = None
    maximum_retry_attempts: int | None = None
    maximum_record_age_s: int | None = None
    bisect_on_function_error: bool = False
    tumbling_window_s: int = 0
    maximum_concurrency: int | None = None
    provisioned_pollers: ProvisionedPollers | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    extensions: Extensions = field(default_factory=Extensions)


def work_alike(one: EventSourceMapping, other: EventSourceMapping) -> bool:
    """Whether the work on a mapping is the same before and after a change: defaults spelled out and tags are none."""
    return _at_work(one) == _at_work(other)


def _at_work(mapping: EventSourceMapping) -> EventSourceMapping:
    return replace(mapping, tags={}, extensions=replace(mapping.extensions, renamed_from=None))


class MappingState(StrEnum):
    """AWS's states of a mapping (spec section 7.3)."""

    CREATING = "Creating"
    ENABLING = "Enabling"
    ENABLED = "Enabled"
    DISABLING = "Disabling"
    DISABLED = "Disabled"
    UPDATING = "Updating"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True)
class MappingRecord:
    """A mapping as the store keeps it: the document as given, and where the state manager is with it."""

    id: MappingId
    name: str
    document: bytes  # JSON with AWS's property names; secrets only as references
    revision: int  # of this mapping; grows with every change of the document
    state: MappingState = MappingState.CREATING
    state_reason: str = "USER_INITIATED"
    modified_time: float = 0.0  # epoch seconds, by the store's clock
    drained: int = 0  # shards read to their end so far: a new value has the tracker look again
    parked_tries: int = 0  # asked for so far: a new value has the holders try everything parked at once
    applied: str = ""  # mark of the document that a file asked for last; empty: no file has, or it asked for removal
    seeks: int = 0  # wishes to move the position so far
    seek: str = ""  # the last of them as long as it is not met: a `model.seek.SeekWish`
