"""What may be said of a function by files and by the API: shapes and rules of both (spec section 6.3). Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from model.function_config import MAX_EVENT_AGE_S, MAX_RETRY_ATTEMPTS, MIN_EVENT_AGE_S, FunctionPart
from model.rules.parameters import FUNCTION
from model.rules.shapes import Field, Integer, Table, Text, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_CONCURRENCY = 1_000_000
CONCURRENCY = Integer(0, MAX_CONCURRENCY)

_DESTINATION = Text(
    0,
    350,
    re.compile(r"|kafka://[^.][a-zA-Z0-9_.-]{0,248}|arn:aws[a-zA-Z0-9-]*:[a-zA-Z0-9-]+:[a-z0-9-]*:(\d{12})?:.+"),
    "the ARN of a queue, a topic, a bucket or a function, or kafka://TOPIC",
)
_END = Table((Field("Destination", _DESTINATION, "Its ARN, or kafka://TOPIC"),))
EVENT_INVOKE = Table((
    Field("MaximumRetryAttempts", Integer(0, MAX_RETRY_ATTEMPTS), "Retries after a function error (default 2)"),
    Field("MaximumEventAgeInSeconds", Integer(MIN_EVENT_AGE_S, MAX_EVENT_AGE_S),
          "How long an event is kept (default 21600)"),
    Field("DestinationConfig", Table((
        Field("OnSuccess", _END, "Who is told of a success: SQS, SNS, another function, Kafka"),
        Field("OnFailure", _END, "Who is told of a failure: the same, or S3"),
    )), "Who is told of what came of an event"),
))  # fmt: skip
DEAD_LETTER = text(
    r"arn:aws[a-z0-9-]*:(sqs|sns):[a-z0-9-]+:\d{12}:[a-zA-Z0-9_-]{1,256}",
    "the ARN of a standard queue or topic",
)

PART_FIELDS = (
    Field("concurrency", CONCURRENCY, "Invocations at one time in the whole fleet, reserved for this function"),
    Field("event_invoke", EVENT_INVOKE, "Asynchronous invocations, in AWS's words"),
    Field("dead_letter", DEAD_LETTER, "Where events of failed asynchronous invocations go"),
)
"""What a file may say of every function."""

NOTHING_GIVEN = "You must specify at least one of error handling or destination setting."

_SERVICES = {"OnSuccess": ("sqs", "sns", "lambda"), "OnFailure": ("sqs", "sns", "lambda", "s3")}


def event_invoke_problem(given: Mapping[str, Any], *, function: str, exists: Callable[[str], bool]) -> str | None:
    """Return in AWS's words what is wrong with settings whose single values are in order; None: nothing.

    `function` is the name of the function, `exists` tells whether another one is there.
    """
    if not given:
        return NOTHING_GIVEN
    ends = {side: end for side, end in destinations(given).items() if end}
    for side, end in ends.items():
        service = "kafka" if end.startswith("kafka://") else end.split(":")[2]
        if service == "lambda":
            parts = FUNCTION.fullmatch(end)
            if parts is None or not exists(end):
                return f"The destination ARN {end} is invalid."
            if parts["name"] == function:
                return "You can't specify the function as a destination for itself."
        elif service not in (*_SERVICES[side], "kafka"):
            told = {
                name: f"{name}(destination={ends[name]})" if name in ends else "null"
                for name in ("OnSuccess", "OnFailure")
            }
            said = f"DestinationConfig(onSuccess={told['OnSuccess']}, onFailure={told['OnFailure']})"
            return f"The provided destination config {said} is invalid."
    return None


def destinations(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the destinations that settings of asynchronous invocation name, empty where there is none."""
    ends = given.get("DestinationConfig") or {}
    return {side: (ends.get(side) or {}).get("Destination") or "" for side in ("OnSuccess", "OnFailure")}


def part_documents(given: Mapping[str, Any]) -> dict[FunctionPart, bytes]:
    """Return the documents of the parts that a file says something of. The same content is the same document."""
    named = ((part, given.get(part)) for part in FunctionPart)
    return {part: document_of(value) for part, value in named if value is not None}


def document_of(value: Any) -> bytes:
    """Return a value as a document of the store."""
    return msgspec.json.encode(value, order="sorted")
