"""A slow, literal matcher in the manner of EventBridge's own, to hold the compiled one against.

Both sides are flattened: the pattern to alternatives of (path, values), the event to (path, value, which element of
which arrays). An alternative matches if one value can be chosen for each path so that no two choices lie in different
elements of one array; a field that must be absent is judged among the values consistent with those choices.
"""

from __future__ import annotations

import itertools
from typing import Any

from model.pattern_operators import WrittenFloat

Path = tuple[str, ...]
Members = dict[int, int]  # the array's number: the element's index
Choice = dict[Path, Any]  # path: one pattern value


def reference_matches(pattern: dict[str, Any], event: object) -> bool:
    """Tell whether the event matches, trying everything."""
    if not isinstance(event, dict):
        return False
    fields: list[tuple[Path, Any, Members]] = []
    _flatten(event, (), {}, fields, itertools.count())
    return any(_consistent(choice, fields) for choice in _choices(pattern, ()))


def _flatten(value: Any, path: Path, members: Members, fields: list[Any], arrays: itertools.count[int]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, (*path, key), members, fields, arrays)
    elif isinstance(value, list):
        array = next(arrays)
        for index, item in enumerate(value):
            inner = members if not isinstance(item, (dict, list)) else {**members, array: index}
            _flatten(item, path, inner, fields, arrays)
    else:
        fields.append((path, value, members))


def _choices(pattern: dict[str, Any], path: Path) -> list[Choice]:
    """Multiply out `$or` and also the values of each leaf."""
    result: list[Choice] = [{}]
    for key, value in pattern.items():
        if key == "$or":
            parts = [choice for item in value for choice in _choices(item, path)]
        elif isinstance(value, dict):
            parts = _choices(value, (*path, key))
        else:
            parts = [{(*path, key): item} for item in value]
        result = [{**left, **right} for left in result for right in parts]
    return result


def _consistent(choice: Choice, fields: list[tuple[Path, Any, Members]]) -> bool:
    present = [(path, value) for path, value in choice.items() if value != {"exists": False}]
    absent = [path for path, value in choice.items() if value == {"exists": False}]
    candidates = [
        [members for where, held, members in fields if where == path and _holds(wanted, held)]
        for path, wanted in present
    ]
    for picked in itertools.product(*candidates):
        chosen: Members = {}
        if not all(_join(chosen, members) for members in picked):
            continue
        if not any(where == path and _join(dict(chosen), members) for path in absent for where, _, members in fields):
            return True
    return False


def _join(chosen: Members, members: Members) -> bool:
    """Add `members` to what was chosen; False if they lie in another element."""
    if any(chosen.get(array, index) != index for array, index in members.items()):
        return False
    chosen.update(members)
    return True


def _holds(wanted: Any, held: Any) -> bool:  # noqa: PLR0911 - one line per operator
    if not isinstance(wanted, dict):
        return type(wanted) is type(held) and _literal(wanted) == _literal(held)
    [(name, operand)] = wanted.items()
    text = held if isinstance(held, str) else None
    match name:
        case "exists":
            return True
        case "prefix" | "suffix":
            fold = isinstance(operand, dict)
            operand = operand["equals-ignore-case"].lower() if fold else operand
            shown = None if text is None else text.lower() if fold else text
            return shown is not None and (shown.startswith(operand) if name == "prefix" else shown.endswith(operand))
        case "equals-ignore-case":
            return text is not None and text.lower() == operand.lower()
        case "wildcard":
            return text is not None and _glob(operand, text)
        case "numeric":
            if isinstance(held, bool) or not isinstance(held, (int, float)):
                return False
            pairs = zip(operand[0::2], operand[1::2], strict=True)
            return all(_compare(held, operator, number) for operator, number in pairs)
        case "anything-but":
            denied = operand if isinstance(operand, list) else [operand]
            if isinstance(operand, dict):
                return not _holds(operand, held)
            return not any(not isinstance(held, bool) and held == item for item in denied)
    raise AssertionError(name)


def _literal(value: Any) -> Any:
    return value.text if isinstance(value, WrittenFloat) else value


def _compare(held: float, operator: str, number: float) -> bool:
    outcomes = {"=": held == number, "<": held < number, "<=": held <= number, ">": held > number, ">=": held >= number}
    return outcomes[operator]


def _glob(pattern: str, text: str) -> bool:
    """Match `*` by trying every length."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_glob(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and _glob(pattern[1:], text[1:])
