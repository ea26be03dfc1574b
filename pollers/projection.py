"""Read of a JSON text only what compiled patterns will look at. Pure.

Decoding is what a filter spends its time on. msgspec skips the keys a type does not name at a third of the cost of
decoding them, and still checks their syntax. `Projection` answers as a full decode would, as far as the patterns can
see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from model.pattern_operators import Leaf, WrittenFloat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from model.pattern_tree import ObjectNode

    Decode = Callable[[Any], object]


class Projection:
    """The decoder for the fields that a set of pattern objects names."""

    __slots__ = ("_full", "_partial")

    def __init__(self, nodes: Iterable[ObjectNode]) -> None:
        self._partial = msgspec.json.Decoder(_type_of(list(nodes)), float_hook=WrittenFloat)
        self._full: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=WrittenFloat)

    def quick(self, payloads: Sequence[bytes | None]) -> Decode:
        """Return what to decode these with: where it raises ValueError or RecursionError, `decode` is to be asked."""
        try:
            return self._partial.decode if all(map(bytes.isascii, payloads)) else self.decode  # type: ignore[arg-type]
        except TypeError:  # one of them is None
            return self.decode

    def decode(self, payload: bytes | None) -> object:
        """Return the document; None if there is none, or no JSON."""
        if payload is None:
            return None
        try:
            try:
                document: object = self._partial.decode(payload)
            except msgspec.ValidationError:
                # JSON, but not of the expected shape: an array where an object was named, a number out of range.
                return self._full.decode(payload)
            if not payload.isascii():
                payload.decode()  # what is skipped is not checked to be UTF-8
        except (ValueError, RecursionError):
            return None
        return document


def _type_of(nodes: list[ObjectNode]) -> Any:
    """Make a TypedDict of the fields named by any of `nodes`; Any where one of them looks at the value itself."""
    fields: dict[str, Any] = {}
    named: dict[str, list[Leaf | ObjectNode]] = {}
    for node in nodes:
        for key, child in node.fields:
            named.setdefault(key, []).append(child)
    for key, children in named.items():
        objects = [child for child in children if not isinstance(child, Leaf)]
        if len(objects) < len(children):
            fields[key] = Any
        else:
            fields[key] = _type_of(objects) | list[Any] | str | int | bool | None
    return TypedDict("Projected", fields, total=False)  # type: ignore[operator]  # not known before the patterns are
