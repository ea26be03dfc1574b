"""The specification's table of what becomes of a record, by the form of its data and of the pattern (section 5.5).

Once held against the pure part, once run on a server of each kind.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from model.mapping import SourceKind

PAYLOADS: Final[dict[str, bytes | None]] = {
    "JSON": b'{"a": "x"}',
    "other JSON": b'{"a": "z"}',
    "JSON array": b'[{"a": "y"}, {"a": "x"}]',
    "plain string": b"x",
    "other plain string": b"z",
    "bare JSON number": b"42",
    "not UTF-8": b'{"a": "x", "b": "\xff"}',
    "absent": None,  # a Kafka tombstone
}

RULES: Final = {"object": '{"a": ["x"]}', "plain string rule": '["x", "42"]', "none": None}
"""What a pattern may ask of the data key."""


class Fate(NamedTuple):
    """One row: True kept, False dropped, None refused with the mapping. The metadata matches."""

    data: str
    rule: str
    kinesis: bool | None
    sqs: bool | None
    kafka: bool | None

    def of(self, kind: SourceKind) -> bool | None:
        """Return the cell of a source."""
        return {SourceKind.KINESIS: self.kinesis, SourceKind.SQS: self.sqs, SourceKind.KAFKA: self.kafka}[kind]


_KEPT, _DROPPED, _REFUSED = True, False, None

FATES: Final = (
    Fate("JSON", "object", _KEPT, _KEPT, _KEPT),
    Fate("other JSON", "object", _DROPPED, _DROPPED, _DROPPED),
    Fate("JSON array", "object", _KEPT, _KEPT, _KEPT),
    Fate("JSON", "none", _KEPT, _KEPT, _KEPT),
    Fate("JSON", "plain string rule", _REFUSED, _DROPPED, _KEPT),
    Fate("plain string", "object", _DROPPED, _DROPPED, _KEPT),
    Fate("bare JSON number", "object", _DROPPED, _DROPPED, _KEPT),
    Fate("plain string", "none", _KEPT, _KEPT, _KEPT),
    Fate("plain string", "plain string rule", _REFUSED, _KEPT, _KEPT),
    Fate("bare JSON number", "plain string rule", _REFUSED, _KEPT, _KEPT),
    Fate("other plain string", "plain string rule", _REFUSED, _DROPPED, _DROPPED),
    Fate("not UTF-8", "object", _DROPPED, _DROPPED, _KEPT),
    Fate("not UTF-8", "plain string rule", _REFUSED, _DROPPED, _KEPT),
    Fate("not UTF-8", "none", _KEPT, _KEPT, _KEPT),
    Fate("absent", "object", _DROPPED, _DROPPED, _DROPPED),
    Fate("absent", "plain string rule", _REFUSED, _DROPPED, _DROPPED),
    Fate("absent", "none", _KEPT, _KEPT, _KEPT),
)


def pattern(data_key: str, rule: str, metadata: str) -> str:
    """Write the pattern of a row: a rule for the data, where there is one, beside one for the metadata."""
    text = RULES[rule]
    return f"{{{metadata}}}" if text is None else f'{{"{data_key}": {text}, {metadata}}}'
