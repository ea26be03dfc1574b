"""Smallest valid mapping documents, one per kind of source, for tests of the validator."""

from __future__ import annotations

from typing import Any

from model.mapping_rules import parse_mapping
from model.problem import InvalidConfigurationError

STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
FIFO = "arn:aws:sqs:us-east-1:000000000000:orders.fifo"
CLUSTER = "arn:aws:kafka:us-east-1:000000000000:cluster/demo/0a1b2c3d-1111-2222-3333-444455556666-1"

SMALLEST: dict[str, dict[str, Any]] = {
    "K": {"EventSourceArn": STREAM, "StartingPosition": "LATEST"},
    "S": {"EventSourceArn": QUEUE},
    "F": {"EventSourceArn": FIFO},
    "A": {
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["127.0.0.1:9092"]}},
        "Topics": ["audit"],
    },
    "M": {"EventSourceArn": CLUSTER, "Topics": ["audit"], "StartingPosition": "TRIM_HORIZON"},
    "T": {"schedule": "rate(5 minutes)"},
}
"""By the letters of the specification's table; T: a schedule."""


def document(source: str, /, **changes: object) -> dict[str, Any]:
    """Return the smallest document of a source with changes; `...` as value removes a key."""
    merged = {"Name": "m", "FunctionName": "f", **SMALLEST[source], **changes}
    return {key: value for key, value in merged.items() if value is not ...}


def problems(given: object, **options: Any) -> list[tuple[str, str]]:
    """Return (path, rule) of everything wrong with a document; empty if nothing is."""
    try:
        parse_mapping(given, **options)  # type: ignore[arg-type]  # also what is no mapping at all
    except InvalidConfigurationError as exc:
        return [(problem.path, problem.rule) for problem in exc.problems]
    return []
