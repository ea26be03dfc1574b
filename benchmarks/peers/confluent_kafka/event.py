"""The event of Kafka mappings, made of confluent-kafka's messages by the standard library's `json`."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from confluent_kafka import TIMESTAMP_CREATE_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def event(servers: str, messages: Iterable[Any]) -> bytes:
    """Make the event of one batch."""
    records: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        kind, timestamp = message.timestamp()
        records.setdefault(f"{message.topic()}-{message.partition()}", []).append(
            {
                "topic": message.topic(),
                "partition": message.partition(),
                "offset": message.offset(),
                "timestamp": timestamp,
                "timestampType": "CREATE_TIME" if kind == TIMESTAMP_CREATE_TIME else "LOG_APPEND_TIME",
                "key": _text(message.key()),
                "value": _text(message.value()),
                "headers": [{name: list(value)} for name, value in message.headers() or ()],
            }
        )
    return json.dumps({"eventSource": "SelfManagedKafka", "bootstrapServers": servers, "records": records}).encode()
