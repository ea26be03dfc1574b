"""From where a mapping's failed records can be redriven, and why not from elsewhere. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import RefusedError
from model.mapping import KafkaSource, SqsSource
from pollers.destinations.kafka import SCHEME

if TYPE_CHECKING:
    from model.mapping import EventSourceMapping

PARKED = "parked"
"""Stands for the mapping's parking lots, in place of a destination."""


def choose(mapping: EventSourceMapping, asked: str | None) -> str:
    """Return the destination to read, or `PARKED`: the one asked for, or else the mapping's own.

    Raises `RefusedError` with what to do instead.
    """
    if asked == PARKED or (asked is None and _only_parks(mapping)):
        return PARKED
    if isinstance(mapping.source, SqsSource):
        raise RefusedError(
            f"{mapping.name} reads a queue: what fails for good is in that queue's own dead-letter queue; "
            "move it back with `aws sqs start-message-move-task`"
        )
    if mapping.tumbling_window_s:
        raise RefusedError(f"{mapping.name} has tumbling windows: those that failed records belong to are closed")
    chosen = asked or mapping.on_failure_destination
    if chosen is None:
        raise RefusedError(f"{mapping.name} has no on-failure destination: name one with --from")
    if chosen.startswith(SCHEME):
        if not isinstance(mapping.source, KafkaSource):
            raise RefusedError(f"{chosen} is a topic of the source's cluster, and {mapping.name} reads no Kafka")
        return chosen
    match _service(chosen):
        case "sqs" | "s3":
            return chosen
        case "sns":
            raise RefusedError(f"{chosen}: an SNS topic keeps nothing; name a queue that subscribed to it with --from")
        case _:
            raise RefusedError(
                f"{chosen}: --from is `{PARKED}`, {SCHEME}TOPIC, or the ARN of an SQS queue or S3 bucket"
            )


def _only_parks(mapping: EventSourceMapping) -> bool:
    return mapping.extensions.park_failing_keys and mapping.on_failure_destination is None


def _service(arn: str) -> str | None:
    """Return which service an ARN is of; None when it is none that says where something is."""
    parts = arn.split(":", 5)
    whole = len(parts) == 6 and parts[0] == "arn" and parts[5] and (parts[2] == "s3" or (parts[3] and parts[4]))  # noqa: PLR2004 - fields of an ARN
    return parts[2] if whole else None
