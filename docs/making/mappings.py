"""The page of mappings' parameters: from the table that files and the Lambda API are checked with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docs.making.words import code, grid, head, inside, shape_words, value, without_default
from model.rules.build import build_mapping
from model.rules.parameters import ALL, EXTENSION_PARAMETERS, PARAMETERS, POLLED, Parameter, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from model.mapping import EventSourceMapping

NAMES = {
    Source.KAFKA: "Kafka",
    Source.MSK: "MSK",
    Source.KINESIS: "Kinesis",
    Source.SQS: "SQS",
    Source.FIFO: "FIFO",
    Source.SCHEDULE: "schedule",
}
"""What readers call the sources, in the order of the page."""

SMALLEST: Mapping[Source, Mapping[str, Any]] = {
    Source.KAFKA: {"Topics": ["t"], "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["k:9092"]}}},
    Source.MSK: {"Topics": ["t"], "EventSourceArn": "arn:aws:kafka:us-east-1:000000000000:cluster/c/0"},
    Source.KINESIS: {"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/s"},
    Source.SQS: {"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q"},
    Source.FIFO: {"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q.fifo"},
    Source.SCHEDULE: {"schedule": "rate(1 minute)"},
}
"""A mapping of each source in which everything that has a default is left out."""

_DESTINATION = {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}}}

DEFAULTS: Mapping[str, Callable[[EventSourceMapping], object]] = {
    "Enabled": lambda made: made.enabled,
    "BatchSize": lambda made: made.batch_size,
    "MaximumBatchingWindowInSeconds": lambda made: made.batching_window_s,
    "ParallelizationFactor": lambda made: made.parallelization_factor,
    "StartingPosition": lambda made: made.starting_position,
    "MaximumRetryAttempts": lambda made: _or_endless(made.maximum_retry_attempts),
    "MaximumRecordAgeInSeconds": lambda made: _or_endless(made.maximum_record_age_s),
    "BisectBatchOnFunctionError": lambda made: made.bisect_on_function_error,
    "TumblingWindowInSeconds": lambda made: made.tumbling_window_s,
    "park_failing_keys": lambda made: made.extensions.park_failing_keys,
    "parked_max_bytes": lambda made: made.extensions.parked_max_bytes,
    "visibility_heartbeat": lambda made: made.extensions.visibility_heartbeat,
    "destination_payload": lambda made: made.extensions.destination_payload,
    "destination_required": lambda made: made.extensions.destination_required,
}
"""What a mapping is made with where a parameter is left out, asked of the code that makes it."""

_UNSUPPORTED = ".SchemaRegistryConfig."
"""What is refused need not be read about in detail."""

_INTRODUCTION = """
What stands under `event_source_mappings`, and what the Lambda API takes: one table checks both. Names, ranges and
defaults of AWS's parameters are AWS's ([specification](../specification.md), section 1). Rules that join parameters
are told by `esmd validate`, with file and line. [Configuration](../configuration.md) says what the parameters do
together.

**Sources**: *all*, or some of Kafka (a cluster of your own), MSK, Kinesis, SQS (standard queues), FIFO and schedule.
A parameter of another source is an error. **Bold** sources need it. A name that begins with a dot stands inside of
the parameter above it, and with `[]` in each entry of its list.
"""


def page() -> str:
    """Return the page."""
    rows = [row for row in PARAMETERS.values() if row.sources and row.name != "extensions"]
    of_aws = [row for row in rows if row.name[0].isupper() and row.name not in {"Name", "UUID"}]
    ours = [row for row in rows if row not in of_aws]
    parts = [
        head(__name__, "Parameters of mappings"),
        _INTRODUCTION,
        "\n## AWS's parameters\n\n",
        _table(of_aws),
        "\n## Additions\n\n",
        "esmd's own, beside AWS's. The API takes `Name` too.\n\n",
        _table(ours),
        "\n## Additions under `extensions`\n\n",
        _table(EXTENSION_PARAMETERS.values()),
        "\n## Not for these sources\n\n",
        "Refused with a sentence that says so: ",
        ", ".join(f"`{row.name}` ({row.about})" for row in PARAMETERS.values() if not row.sources),
        ".\n",
    ]
    return "".join(parts)


def _table(rows: Iterable[Parameter]) -> str:
    lines = [line for row in rows for line in _lines(row)]
    return grid(("Parameter", "What it is", "Type and range", "Default", "Sources"), lines)


def _lines(row: Parameter) -> Iterator[tuple[str, str, str, str, str]]:
    about, told = without_default(row.about)
    yield code(row.name), about, _shape(row), _default(row) or told, _sources(row)
    widest = max((row.shape, *row.special.values()), key=lambda shape: len([*inside(shape, "")]))
    for inner in inside(widest, row.name):
        if _UNSUPPORTED in inner.path:
            continue
        about, told = without_default(inner.field.about)
        required = "**required**" if inner.field.required else told
        yield code(inner.path.removeprefix(row.name)), about, shape_words(inner.field.shape), required, ""


def _shape(row: Parameter) -> str:
    """Return the type, and that of a source which has another."""
    usual = shape_words(row.shape)
    others: dict[str, list[str]] = {}
    for source, shape in row.special.items():
        if (words := shape_words(shape)) != usual:
            others.setdefault(words, []).append(NAMES[source])
    return usual + "".join(f"; {' and '.join(names)}: {words}" for words, names in others.items())


def _default(row: Parameter) -> str:
    """Return the default, and that of a source which has another, also with an on-failure destination."""
    ask = DEFAULTS.get(row.name)
    if ask is None:
        return ""
    by_value: dict[str, list[str]] = {}
    for source, name in NAMES.items():
        if source not in row.sources or source in row.required:
            continue
        document = {"Name": "m", "FunctionName": "f", **SMALLEST[source]}
        usual = value(ask(build_mapping(document, source)))
        by_value.setdefault(usual, []).append(name)
        if source in PARAMETERS["DestinationConfig"].sources:
            other = value(ask(build_mapping({**document, **_DESTINATION}, source)))
            if other != usual:
                by_value.setdefault(other, []).append(f"{name} with a destination")
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{', '.join(names)}: {said}" for said, names in by_value.items())


def _or_endless(limit: int | None) -> object:
    return -1 if limit is None else limit


def _sources(row: Parameter) -> str:
    """Return whose parameter it is; those that need it in bold."""
    if row.sources == ALL:
        return "**all**" if row.required == ALL else "all"
    if row.sources == POLLED and not row.required:
        return "all but schedule"
    names = ((name, source in row.required) for source, name in NAMES.items() if source in row.sources)
    return ", ".join(f"**{name}**" if needed else name for name, needed in names)
