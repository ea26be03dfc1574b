"""The filter that peers apply by hand: equality on one field, parsed by orjson, as their users write it.

It needs orjson and nothing else of any peer's environment.
"""

from __future__ import annotations

import orjson


def kept(data: bytes | str | None, kind: str) -> bool:
    """Whether a record is of this type. Without data it is of none; what is no JSON object ends the program."""
    return bool(orjson.loads(data or b"{}").get("type") == kind)
