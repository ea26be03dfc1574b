"""The event of Kafka mappings, made of aiokafka's records by the standard library's `json`."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def event(servers: str, found: Iterable[Any]) -> bytes:
    """Make the event of one batch."""
    records: dict[str, list[dict[str, Any]]] = {}
    for record in found:
        records.setdefault(f"{record.topic}-{record.partition}", []).append(
            {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": record.timestamp,
                "timestampType": "LOG_APPEND_TIME" if record.timestamp_type else "CREATE_TIME",
                "key": _text(record.key),
                "value": _text(record.value),
                "headers": [{name: list(value)} for name, value in record.headers],
            }
        )
    return json.dumps({"eventSource": "SelfManagedKafka", "bootstrapServers": servers, "records": records}).encode()
