"""What a mapping's records pass on their way, for people who look: source, filter, batch, function. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from model.mapping import EventSourceMapping


class Flow(msgspec.Struct, frozen=True):
    """One mapping's way, as its document describes it. Holds no secret and no reference to one."""

    kind: str  # a `SourceKind`
    source: str  # the topic, or the last part of the ARN
    arn: str | None
    function: str
    filters: int
    batch_size: int
    window_s: float
    lanes: int
    tumbling_window_s: int
    retries: int | None  # None: as long as the source keeps the record
    bisect: bool
    partial_responses: bool
    parks: bool
    destination: str | None


def flow_of(mapping: EventSourceMapping) -> Flow:
    """Return a mapping's way."""
    # By name rather than by class: a source that has neither is called after its mapping.
    arn = getattr(mapping.source, "arn", None)
    topic = getattr(mapping.source, "topic", None)
    extensions = mapping.extensions
    return Flow(
        kind=str(mapping.source.kind),
        source=str(topic or (_tail(arn) if arn else mapping.name)),
        arn=arn,
        function=mapping.function_name,
        filters=len(mapping.filter_patterns),
        batch_size=mapping.batch_size,
        window_s=mapping.batching_window_s,
        lanes=extensions.parallelization_factor or mapping.parallelization_factor,
        tumbling_window_s=mapping.tumbling_window_s,
        retries=mapping.maximum_retry_attempts,
        bisect=mapping.bisect_on_function_error,
        partial_responses=mapping.report_batch_item_failures,
        parks=extensions.park_failing_keys,
        destination=mapping.on_failure_destination,
    )


def _tail(arn: str) -> str:
    """Return what people call the thing: `stream/clicks` is `clicks`, a queue's ARN ends with its name."""
    return arn.rpartition(":")[2].rpartition("/")[2]
