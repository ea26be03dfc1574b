"""A compiled pattern without `$or`: fields inside fields, leaves at the end, and how it is held against a document.

Arrays in a document are looked through at any depth: a leaf holds if any element does, and all fields of one pattern
object must hold within the same element. `{"exists": false}` asks that no element has the field, but where another
field has chosen the element, only that element is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.pattern_operators import MISSING, Leaf, flatten, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_SHOWN: Final = 200  # characters of an event's value in an explanation


class ObjectNode:
    """What an object must hold: all of `fields`."""

    __slots__ = ("_asked", "accepts_absent", "fields", "mentions_absence")

    def __init__(self, fields: Mapping[str, Leaf | ObjectNode]) -> None:
        self.fields: tuple[tuple[str, Leaf | ObjectNode], ...] = tuple(fields.items())
        # With what is asked of a text, which most values are: a call less than the node's own `matches`.
        self._asked = [(key, node.test if isinstance(node, Leaf) else None, node) for key, node in self.fields]
        self.accepts_absent: bool = all(node.accepts_absent for node in fields.values())
        self.mentions_absence: bool = any(
            node.accepts_absent if isinstance(node, Leaf) else node.mentions_absence for node in fields.values()
        )

    def matches(self, value: object) -> bool:
        """Tell whether `value` (or MISSING) is as asked for."""
        if isinstance(value, dict):
            get = value.get
            for key, of_text, node in self._asked:
                found = get(key, MISSING)
                if not (of_text(found) if of_text is not None and type(found) is str else node.matches(found)):
                    return False
            return True
        if isinstance(value, list):
            return self.absent_from((value,)) or self.found_in(value)
        return self.accepts_absent

    def found_in(self, value: object) -> bool:
        """Tell whether `value` is as asked for, with at least one field that is there."""
        if isinstance(value, list):
            return any(isinstance(item, dict) and self.found_in(item) for item in flatten(value))
        if not isinstance(value, dict):
            return False
        if not self.mentions_absence:
            return self.matches(value)
        held = [(node, value.get(key, MISSING)) for key, node in self.fields]
        return all(node.matches(item) for node, item in held) and any(node.found_in(item) for node, item in held)

    def absent_from(self, values: Sequence[object]) -> bool:
        """Tell whether all fields may be absent and are absent from all of `values`."""
        if not self.accepts_absent:
            return False
        objects = [item for item in flatten(values) if isinstance(item, dict)]
        return all(node.absent_from([item[key] for item in objects if key in item]) for key, node in self.fields)


def explain(node: Leaf | ObjectNode, value: object, path: str) -> Iterator[str]:
    """Yield why `value` at `path` is not as asked for, field by field; nothing if it is."""
    if node.matches(value):
        return
    if isinstance(node, Leaf):
        yield f"{path}: {_leaf_reason(node, value)}"
    elif isinstance(value, dict):
        for key, child in node.fields:
            yield from explain(child, value.get(key, MISSING), f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        elements = [item for item in flatten(value) if isinstance(item, dict)]
        if len(elements) == 1:
            yield from explain(node, elements[0], path)
        else:
            names = ", ".join(key for key, _ in node.fields)
            yield f"{path}: none of the {len(elements)} objects in the array matches in {names} at once"
    elif value is MISSING:
        yield f"{path}: absent"
    else:
        yield f"{path or 'the event'}: {_short(value)} is not an object"


def _leaf_reason(leaf: Leaf, value: object) -> str:
    if value is MISSING:
        return f"absent, wanted {leaf.text}"
    if isinstance(value, dict):
        return f"an object, wanted {leaf.text}"
    if isinstance(value, list):
        return f"no element of {_short(value)} matches {leaf.text}"
    reason = f"{_short(value)} does not match {leaf.text}"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in leaf.numbers:
        reason += ' (the same number written differently; "numeric" compares values)'
    return reason


def _short(value: object) -> str:
    text = show(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def keys_of(nodes: Iterable[ObjectNode]) -> frozenset[str]:
    """Return the keys that any of `nodes` asks for."""
    return frozenset(key for node in nodes for key, _ in node.fields)
