"""The table of a mapping's parameters: spec sections 1.1 and 1.2, and ours under `extensions`.

One row per parameter: the sources it belongs to, its shape (where sources differ, one per source) and where it must
be given. Defaults are applied in `build`. Rules that join fields are in `cross_field`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from model.rules.shapes import Boolean, Choice, Field, Integer, Json, ListOf, MapOf, Shape, Table, Text, Timestamp, text

if TYPE_CHECKING:
    from collections.abc import Mapping


class Source(StrEnum):
    """The kinds of source that rules tell apart; the values are the letters of the specification's table."""

    KINESIS = "K"
    SQS = "S"
    FIFO = "F"
    KAFKA = "A"
    MSK = "M"
    SCHEDULE = "T"  # ours


ALL = frozenset(Source)
POLLED = ALL - {Source.SCHEDULE}
SQS = frozenset({Source.SQS, Source.FIFO})
KAFKA = frozenset({Source.KAFKA, Source.MSK})
STREAMS = frozenset({Source.KINESIS}) | KAFKA
SCHEDULED = frozenset({Source.SCHEDULE})

_REGION = r"[a-z0-9-]+"
_ACCOUNT = r"\d{12}"
_ARN = r"arn:aws[a-z0-9-]*"
KINESIS_ARN = re.compile(
    rf"({_ARN}:kinesis:{_REGION}:{_ACCOUNT}:stream/[a-zA-Z0-9_.-]{{1,128}})(/consumer/[a-zA-Z0-9_.-]+:\d+)?"
)
SQS_ARN = re.compile(rf"{_ARN}:sqs:{_REGION}:{_ACCOUNT}:[a-zA-Z0-9_-]{{1,80}}(\.fifo)?")
MSK_ARN = re.compile(
    rf"{_ARN}:kafka:{_REGION}:{_ACCOUNT}:(cluster|vpc-connection/{_ACCOUNT})/[a-zA-Z0-9_-]+/[a-zA-Z0-9-]+"
)
SECRET_ARN = re.compile(rf"{_ARN}:secretsmanager:{_REGION}:{_ACCOUNT}:secret:[a-zA-Z0-9/_+=.@!-]+")
FUNCTION = re.compile(
    rf"(?:(?:{_ARN}:lambda:)?(?:(?P<region>{_REGION}-\d):)?(?:(?P<account>{_ACCOUNT}):)?function:"
    rf"|(?P<account_only>{_ACCOUNT}):(?:function:)?)?"
    r"(?P<name>[a-zA-Z0-9_.-]+)(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9_-]+))?"
)
DESTINATION = re.compile(
    rf"|{_ARN}:(sqs|sns):{_REGION}:{_ACCOUNT}:[a-zA-Z0-9_.-]{{1,256}}"
    rf"|{_ARN}:s3:[a-z0-9-]*:\d*:[a-z0-9.-]{{3,63}}|kafka://.+"
)
TOPIC = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]*")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_HOST = r"[a-zA-Z0-9]([a-zA-Z0-9_-]*[a-zA-Z0-9])?"
_PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3})"
BROKER = text(rf"(({_HOST}\.)*{_HOST}|\[[0-9a-fA-F:.]+\]):{_PORT}", "HOST:PORT", longest=300)

SASL_TYPES = ("BASIC_AUTH", "SASL_SCRAM_256_AUTH", "SASL_SCRAM_512_AUTH")
NETWORK_TYPES = {"VPC_SUBNET": "subnet:", "VPC_SECURITY_GROUP": "security_group:"}
OAUTH_TYPES = (
    "OAUTHBEARER_AUTH",
    "OAUTHBEARER_SCOPE",
    "OAUTHBEARER_AUDIENCE",
    "OAUTHBEARER_LOGICAL_CLUSTER",
    "OAUTHBEARER_IDENTITY_POOL",
    "IAM_AUTH",
    "IAM_OAUTHBEARER_AUTH",
)
"""Named by AWS's guide; esmd does not speak them."""

ACCESS_TYPES = ("BASIC_AUTH", "SASL_SCRAM_512_AUTH", "SASL_SCRAM_256_AUTH", "CLIENT_CERTIFICATE_TLS_AUTH",
                "SERVER_ROOT_CA_CERTIFICATE", *NETWORK_TYPES)  # fmt: skip
MSK_ACCESS_TYPES = ("SASL_SCRAM_512_AUTH", "CLIENT_CERTIFICATE_TLS_AUTH")
REGISTRY_ACCESS_TYPES = ("BASIC_AUTH", "CLIENT_CERTIFICATE_TLS_AUTH", "SERVER_ROOT_CA_CERTIFICATE")


def access_list(types: tuple[str, ...], longest: int | None) -> ListOf:
    """Make the shape of a list of `{Type, URI}`. What a URI must look like depends on the type: see `cross_field`."""
    return ListOf(
        Table((
            Field("Type", Choice(types), "What the URI holds", required=True),
            Field("URI", Text(1, 200, secret=True), "Secrets Manager ARN, or ${env:…}, ${file:…}, ${secretsmanager:…}",
                  required=True),
        )),
        max_items=longest,
    )  # fmt: skip


def _kafka_config() -> Table:
    registry = Table((
        Field("SchemaRegistryURI", Text(1, 10000), "Glue registry ARN or HTTPS URL"),
        Field("EventRecordFormat", Choice(("JSON", "SOURCE")), "How records reach the function"),
        Field("SchemaValidationConfigs",
              ListOf(Table((Field("Attribute", Choice(("KEY", "VALUE")), "", required=True),)), 1, unique=True),
              "Which parts are validated"),
        Field("AccessConfigs", access_list(REGISTRY_ACCESS_TYPES, None), "How to log on to the registry"),
    ))  # fmt: skip
    group = text(r"[a-zA-Z0-9/*:_+=.@-]+", "letters, digits and /*:_+=.@-", longest=200)
    return Table((
        Field("ConsumerGroupId", group, "Consumer group; the mapping's UUID if absent"),
        Field("SchemaRegistryConfig", registry, "Schema registry (not supported; only {} is accepted)"),
    ))  # fmt: skip


def _pollers(minimum: int, maximum: int, *, groups: bool) -> Table:
    fields = [
        Field("MinimumPollers", Integer(minimum, 200), "Pollers that are always on"),
        Field("MaximumPollers", Integer(minimum, maximum), "Most pollers"),
    ]
    if groups:
        name = text(r"[a-zA-Z0-9_-]*", "letters, digits, - and _", longest=128)
        fields.append(Field("PollerGroupName", name, "Mappings that share pollers"))
    return Table(tuple(fields))


@dataclass(frozen=True, slots=True)
class Parameter:
    """One top-level parameter of a mapping."""

    name: str
    sources: frozenset[Source]
    shape: Shape
    about: str
    required: frozenset[Source] = frozenset()
    special: Mapping[Source, Shape] = field(default_factory=dict)

    def shape_for(self, source: Source | None) -> Shape:
        """Return the shape for a source; the widest one when the source is not known."""
        return self.shape if source is None else self.special.get(source, self.shape)


def _metrics(*names: str) -> Table:
    return Table((Field("Metrics", ListOf(Choice(names), 0, len(names), unique=True), "Groups of metrics"),))


MAX_INPUT_BYTES = 256 * 1024
"""The largest input of a schedule: as large as an event of EventBridge may be."""

_NAME = text(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", "letters, digits, - _ and .", longest=128)
_FORMER = Text()
_OF_SQS = _pollers(2, 10000, groups=False)  # the SDK model says 2000, the guide 10000

_ROWS: tuple[Parameter, ...] = (
    Parameter("Name", ALL, _NAME, "Stable identity of the mapping"),
    Parameter("UUID", ALL, Text(pattern=UUID, means="a UUID"), "Identity, where the name's own shall not be used"),
    Parameter("FunctionName", ALL, Text(1, 256, FUNCTION, "a function name, NAME:QUALIFIER or a function ARN"),
              "Function to invoke", required=ALL),
    Parameter("EventSourceArn", POLLED - {Source.KAFKA}, Text(1, 1024),
              "ARN of the stream, stream consumer, queue or cluster"),
    Parameter("SelfManagedEventSource", frozenset({Source.KAFKA}),
              Table((Field("Endpoints", Table((
                  Field("KAFKA_BOOTSTRAP_SERVERS", ListOf(BROKER, 1, 10), "Brokers, HOST:PORT", required=True),)),
                  "Where the cluster is", required=True),)),
              "A Kafka cluster of one's own"),
    Parameter("schedule", SCHEDULED, Text(1, 256), "When to fire: rate(5 minutes), cron(0 12 * * ? *)",
              required=SCHEDULED),
    Parameter("schedule_timezone", SCHEDULED, Text(1, 64), "Time zone of a cron expression (default UTC)"),
    Parameter("missed", SCHEDULED, Choice(("once", "skip")),
              "What becomes of firings missed in an outage: caught up once, or skipped (default once)"),
    Parameter("input", SCHEDULED, Json(MAX_INPUT_BYTES), "The event, instead of EventBridge's Scheduled Event"),
    Parameter("Enabled", ALL, Boolean(), "false pauses reading; the position is kept (default true)"),
    Parameter("BatchSize", POLLED, Integer(1, 10000), "Most records in one invocation (default 100; SQS 10)",
              special={Source.FIFO: Integer(1, 10)}),
    Parameter("MaximumBatchingWindowInSeconds", POLLED, Integer(0, 300),
              "Longest wait for a batch (default 0; Kafka 0.5 s)"),
    Parameter("ParallelizationFactor", STREAMS, Integer(1, 10),
              "Batches per shard at one time, in order per key (default 1)"),
    Parameter("StartingPosition", STREAMS, Choice(("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")),
              "Where reading starts without a checkpoint",
              required=frozenset({Source.KINESIS, Source.MSK})),
    Parameter("StartingPositionTimestamp", STREAMS, Timestamp(), "The time for AT_TIMESTAMP"),
    Parameter("FilterCriteria", POLLED,
              Table((Field("Filters", ListOf(Table((
                  Field("Pattern", Text(0, 4096), "EventBridge pattern as JSON text", required=True),)), 0, 10),
                  "A record passes if any filter matches"),)),
              "Which records reach the function"),
    Parameter("KMSKeyArn", POLLED, text(r"|arn:aws[a-z0-9-]*:[a-z0-9-.]+:.+", "a key ARN or empty", longest=2048),
              "Accepted for compatibility; has no effect"),
    Parameter("FunctionResponseTypes", POLLED, ListOf(Choice(("ReportBatchItemFailures",)), 0, 1),
              "Let the function report failed records"),
    Parameter("DestinationConfig", STREAMS | SCHEDULED,
              Table((Field("OnFailure", Table((Field("Destination",
                  Text(0, 350, DESTINATION, "the ARN of an SQS queue, an SNS topic or an S3 bucket, or kafka://TOPIC"),
                  "ARN, or kafka://TOPIC for Kafka"),)), "Where failed batches go"),)),
              "Where failed batches go"),
    Parameter("MaximumRetryAttempts", STREAMS | SCHEDULED, Integer(-1, 10000),
              "Retries after function errors; -1 without end (default; of a schedule 2)"),
    Parameter("MaximumRecordAgeInSeconds", STREAMS | SCHEDULED, Integer(60, 604800, also=(-1,)),
              "Oldest record to try; -1 any (default)"),
    Parameter("BisectBatchOnFunctionError", STREAMS, Boolean(), "Halve a failing batch (default false)"),
    Parameter("TumblingWindowInSeconds", frozenset({Source.KINESIS}), Integer(0, 900),
              "Length of state windows; 0 off (default)"),
    Parameter("ScalingConfig", SQS, Table((Field("MaximumConcurrency", Integer(2, 1000), "Most invocations at once"),)),
              "Limit of concurrency"),
    Parameter("ProvisionedPollerConfig", SQS | KAFKA, _pollers(1, 10000, groups=True), "Number of pollers",
              special=dict.fromkeys(SQS, _OF_SQS) | dict.fromkeys(KAFKA, _pollers(1, 2000, groups=True))),
    Parameter("Topics", KAFKA, ListOf(Text(1, 249, TOPIC, "a topic name (letters, digits, . _ -; no wildcards)"), 1, 1),
              "The one topic to read", required=KAFKA),
    Parameter("SourceAccessConfigurations", KAFKA, access_list(ACCESS_TYPES + OAUTH_TYPES, 22),
              "How to log on to the cluster",
              special={Source.MSK: access_list(MSK_ACCESS_TYPES, 22)}),
    Parameter("SelfManagedKafkaEventSourceConfig", frozenset({Source.KAFKA}), _kafka_config(), "Consumer group"),
    Parameter("AmazonManagedKafkaEventSourceConfig", frozenset({Source.MSK}), _kafka_config(), "Consumer group"),
    Parameter("MetricsConfig", POLLED,
              _metrics("EventCount", "ErrorCount", "KafkaMetrics"),
              "Accepted for compatibility; every metric is always on",
              special=dict.fromkeys(POLLED - KAFKA, _metrics("EventCount"))),
    Parameter("LoggingConfig", KAFKA, Table((Field("SystemLogLevel", Choice(("DEBUG", "INFO", "WARN")), ""),)),
              "Accepted for compatibility"),
    Parameter("Tags", ALL, MapOf(Text(1, 128), Text(0, 256), 50), "Your own labels"),
    Parameter("Queues", frozenset(), _FORMER, "Amazon MQ only"),
    Parameter("DocumentDBEventSourceConfig", frozenset(), _FORMER, "DocumentDB only"),
    Parameter("extensions", ALL, Table(()), "What esmd adds to AWS's parameters"),  # rows in EXTENSIONS
)  # fmt: skip

EXTENSIONS: tuple[Parameter, ...] = (
    Parameter("parallelization_factor", KAFKA, Integer(1, 100),
              "Kafka: ordered lanes per record key inside a partition (default 1)"),
    Parameter("park_failing_keys", STREAMS | {Source.FIFO}, Boolean(),
              "Set records of a failing key aside; let other keys go on (default false)"),
    Parameter("park_after", STREAMS, Integer(1, 10001),
              "Function errors of one key before it is parked (default: all its retries; 1 if they are endless)"),
    Parameter("parked_max_bytes", STREAMS | {Source.FIFO}, Integer(65536, 2**40),
              "Most bytes parked per shard (default 8 MiB)"),
    Parameter("visibility_heartbeat", SQS, Boolean(), "Extend visibility while the function runs (default true)"),
    Parameter("destination_payload", STREAMS | SCHEDULED, Boolean(),
              "Put the event itself into failure records (default false)"),
    Parameter("destination_required", STREAMS | SCHEDULED, Boolean(),
              "Hold the shard until the destination took the failure (default true)"),
    Parameter("renamed_from", ALL, _NAME, "The mapping's former name: it keeps its UUID and its positions"),
)  # fmt: skip

PARAMETERS: Mapping[str, Parameter] = {row.name: row for row in _ROWS}
EXTENSION_PARAMETERS: Mapping[str, Parameter] = {row.name: row for row in EXTENSIONS}


def extensions_shape(source: Source | None) -> Table:
    """Return the shape of `extensions` for a source, or for any."""
    return Table(tuple(
        Field(row.name, row.shape_for(source), row.about)
        for row in EXTENSIONS
        if source is None or source in row.sources
    ))  # fmt: skip
