"""The values a pattern may ask of one field: literals and EventBridge's operators, compiled to small tests.

Knows nothing of where the field stands; `model.pattern` walks patterns and documents.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Test = Callable[[object], bool]  # asked of one scalar: str, int, float, bool or None
    Compile = Callable[[object, str], Test]


class InvalidPatternError(ValueError):
    """A filter pattern is not valid: `path` is the place in it ("" for all of it), `reason` the broken rule."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class WrittenFloat(float):
    """A number with a fraction or an exponent that remembers how it was written: equality compares the text."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Self:
        """Make the number that `text` writes."""
        number = super().__new__(cls, text)
        number.text = text
        return number


class Missing:
    """What a field has that is not there."""

    def __repr__(self) -> str:
        return "absent"


MISSING: Final = Missing()
NUMERIC_LIMIT: Final = 5e9  # EventBridge compares numbers between -5.0e9 and 5.0e9 only


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """What one field must hold: at least one of the values or operators listed for it."""

    test: Test
    accepts_absent: bool  # has {"exists": false}
    numbers: frozenset[float]  # among its values, for explanations
    text: str  # as in the pattern

    def matches(self, value: object) -> bool:
        """Tell whether a field holding `value` (or MISSING) is as asked for; of an array any element may be."""
        kind = type(value)
        if kind is list:
            return self.absent_from((value,)) or self.found_in(value)
        if kind is dict or value is MISSING:
            return self.accepts_absent
        return self.test(value)

    def found_in(self, value: object) -> bool:
        """Tell whether a value that is there is as asked for."""
        kind = type(value)
        if kind is list:
            return any(type(item) is not dict and self.test(item) for item in flatten(value))
        return kind is not dict and value is not MISSING and self.test(value)

    def absent_from(self, values: Sequence[object]) -> bool:
        """Tell whether the field may be absent and none of `values` has one. An object in its place is none."""
        return self.accepts_absent and all(type(item) is dict for item in flatten(values))


def flatten(values: object) -> Iterator[object]:
    """Yield what the array and the arrays inside it hold; without recursion, since events nest as they like."""
    stack: list[Any] = [values]
    while stack:
        for item in stack.pop():
            if type(item) is list:
                stack.append(item)
            else:
                yield item


def compile_leaf(items: Sequence[object], path: str) -> Leaf:
    """Compile the array of a leaf. Raises InvalidPatternError."""
    if not items:
        raise InvalidPatternError(path, "Empty arrays are not allowed")
    strings: set[str] = set()
    numbers: list[float] = []
    tests: list[Test] = []
    for index, item in enumerate(items):
        match item:
            case str():
                strings.add(item)
            case None | bool():
                tests.append(_is(item))
            case int() | float():
                numbers.append(item)
            case dict():
                tests.append(_operator(item, f"{path}[{index}]"))
            case _:
                reason = "Match value must be String, number, true, false, or null"
                raise InvalidPatternError(f"{path}[{index}]", reason)
    if numbers:
        tests.insert(0, _number_as_written(numbers))
    if strings:
        tests.insert(0, frozenset(strings).__contains__)
    return Leaf(_any_of(tests), _nothing in tests, frozenset(numbers), show(items))


def _operator(expression: dict[str, object], where: str) -> Test:
    name, operand = _single(expression, where, "match expression")
    if name not in _OPERATORS:
        raise InvalidPatternError(where, f"Unrecognized match type {name}")
    return _OPERATORS[name](operand, f"{where}.{name}")


def _single(expression: dict[str, object], where: str, what: str) -> tuple[str, object]:
    """Return the only key and value of an operator object."""
    if len(expression) != 1:
        reason = f"Only one key allowed in {what}" if expression else "Match expression name not found"
        raise InvalidPatternError(where, reason)
    return next(iter(expression.items()))


def _any_of(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    fixed = tuple(tests)
    return lambda value: any(test(value) for test in fixed)


def _anything(_value: object) -> bool:
    return True


def _nothing(_value: object) -> bool:
    """Be what `{"exists": false}` asks of a value that is there; `Leaf.accepts_absent` is the rest of it."""
    return False


def _exists(operand: object, where: str) -> Test:
    if not isinstance(operand, bool):
        raise InvalidPatternError(where, "exists match pattern must be either true or false")
    return _anything if operand else _nothing


def _is(constant: object) -> Test:
    return lambda value: value is constant


def _number_as_written(numbers: Sequence[float]) -> Test:
    """Compare numbers as they are written: 300, 300.0 and 3.0e2 are three different things."""
    integers = frozenset(number for number in numbers if type(number) is int)
    texts = frozenset(_written(number) for number in numbers if type(number) is not int)

    def test(value: object) -> bool:
        if type(value) is int:
            return value in integers
        return isinstance(value, float) and _written(value) in texts

    return test


def _written(number: float) -> str:
    return number.text if isinstance(number, WrittenFloat) else repr(number)


def show(value: object, *, depth: int = 8) -> str:
    """Return a value as JSON for people, numbers as they were written."""
    if isinstance(value, float):
        return _written(value)
    if isinstance(value, (dict, list)) and not depth:
        return "…"
    if isinstance(value, dict):
        pairs = (f"{show(key)}: {show(item, depth=depth - 1)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(show(item, depth=depth - 1) for item in value)}]"
    return str(msgspec.json.encode(value), "utf-8")


def _string(operand: object, where: str) -> str:
    if not isinstance(operand, str):
        raise InvalidPatternError(where, f"{where.rpartition('.')[2]} match pattern must be a string")
    return operand


def _exactly(operand: object, where: str) -> Test:
    expected = _string(operand, where)
    return lambda value: value == expected


def _equals_ignore_case(operand: object, where: str) -> Test:
    folded = _string(operand, where).casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _affix(method: Callable[[str, str], bool]) -> Compile:
    """Make the compiler of `prefix` (str.startswith) or `suffix` (str.endswith), with its form that ignores case."""

    def compile_affix(operand: object, where: str) -> Test:
        if isinstance(operand, dict):
            name, inner = _single(operand, where, "match expression")
            if name != "equals-ignore-case":
                raise InvalidPatternError(where, f"Unsupported {where.rpartition('.')[2]} pattern: {name}")
            folded = _string(inner, f"{where}.{name}").casefold()
            return lambda value: isinstance(value, str) and method(value.casefold(), folded)
        affix = _string(operand, where)
        return lambda value: isinstance(value, str) and method(value, affix)

    return compile_affix


def _wildcard(operand: object, where: str) -> Test:
    r"""Let `*` stand for any characters, also none; `\*` is an asterisk, `\\` a backslash. Linear time on any event."""
    pieces = _wildcard_pieces(_string(operand, where), where)
    if len(pieces) == 1:
        return lambda value: value == pieces[0]
    first, *middle, last = pieces
    shortest = sum(map(len, pieces))

    def test(value: object) -> bool:
        if not (isinstance(value, str) and len(value) >= shortest and value.startswith(first) and value.endswith(last)):
            return False
        start, end = len(first), len(value) - len(last)
        for piece in middle:
            found = value.find(piece, start, end)
            if found < 0:
                return False
            start = found + len(piece)
        return True

    return test


def _wildcard_pieces(text: str, where: str) -> list[str]:
    """Cut a wildcard at its unescaped asterisks."""
    pieces = [""]
    characters = iter(range(len(text)))
    for at in characters:
        character = text[at]
        if character == "\\":
            if text[at + 1 : at + 2] not in {"*", "\\"}:
                raise InvalidPatternError(where, f"Invalid escape character at pos {at}")
            pieces[-1] += text[next(characters)]
        elif character == "*":
            if text[at + 1 : at + 2] == "*":
                raise InvalidPatternError(where, f"Consecutive wildcard characters at pos {at}")
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _cidr(operand: object, where: str) -> Test:
    base, slash, bits = _string(operand, where).partition("/")
    if not slash or "/" in bits:
        raise InvalidPatternError(where, "Malformed CIDR, one '/' required")
    if not (bits.isascii() and bits.isdigit()):
        raise InvalidPatternError(where, "Malformed CIDR, mask bits must be an integer")
    try:
        network = ipaddress.ip_network(f"{ipaddress.ip_address(base)}/{bits}", strict=False)
    except ValueError as exc:
        raise InvalidPatternError(where, f"Malformed CIDR: {exc}") from exc

    def test(value: object) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return test


def _bound(number: object, operator: str, where: str) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InvalidPatternError(where, f"Value of {operator} must be numeric")
    if not -NUMERIC_LIMIT <= number <= NUMERIC_LIMIT:
        raise InvalidPatternError(where, "Value must be between -5.0E9 and 5.0E9, inclusive")
    return number


def _numeric(operand: object, where: str) -> Test:
    """Compare by value. One comparison, or a lower and an upper bound."""
    if not isinstance(operand, list):
        raise InvalidPatternError(where, "Value of numeric must be an array.")
    operators, numbers = operand[0::2], operand[1::2]
    for operator in operators:
        if operator not in ("=", "<", "<=", ">", ">="):
            raise InvalidPatternError(where, f"Unrecognized numeric range operator: {operator}")
    if not operators or len(operators) != len(numbers):
        raise InvalidPatternError(where, "numeric takes pairs of an operator and a number")
    bounds = [_bound(number, operator, where) for operator, number in zip(operators, numbers, strict=True)]
    low, high, with_low, with_high = -NUMERIC_LIMIT, NUMERIC_LIMIT, True, True
    match operators:
        case ["="]:
            low = high = bounds[0]
        case ["<" | "<=" as upper]:
            high, with_high = bounds[0], upper == "<="
        case [">" | ">=" as lower]:
            low, with_low = bounds[0], lower == ">="
        case [">" | ">=" as lower, "<" | "<=" as upper]:
            low, high, with_low, with_high = *bounds, lower == ">=", upper == "<="
            if low >= high:
                raise InvalidPatternError(where, "Bottom must be less than top")
        case _:
            raise InvalidPatternError(where, f"Bad numeric range: {' '.join(operators)}")
    return _between(low, high, with_low=with_low, with_high=with_high)


def _between(low: float, high: float, *, with_low: bool, with_high: bool) -> Test:
    def test(value: object) -> bool:
        if type(value) is bool or not isinstance(value, (int, float)):
            return False
        return (low < value or (with_low and low == value)) and (value < high or (with_high and value == high))

    return test


def _anything_but(operand: object, where: str) -> Test:
    """Match every value that is there but the ones listed. Numbers are compared by value."""
    if isinstance(operand, dict):
        name, inner = _single(operand, where, "match expression")
        if name not in _DENIABLE:
            raise InvalidPatternError(where, f"Unsupported anything-but pattern: {name}")
        values = inner if isinstance(inner, list) else [inner]
        if not values:
            raise InvalidPatternError(where, "Empty arrays are not allowed")
        if name in {"prefix", "suffix"} and "" in values:
            raise InvalidPatternError(where, "Null prefix/suffix not allowed")
        texts = [_string(value, f"{where}.{name}") for value in values]
        excluded = _any_of([_DENIABLE[name](text, f"{where}.{name}") for text in texts])
        return lambda value: not excluded(value)
    listed = operand if isinstance(operand, list) else [operand]
    if listed and all(isinstance(value, str) for value in listed):
        strings = frozenset(listed)
        return lambda value: value not in strings
    if listed and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in listed):
        numbers = frozenset(listed)
        return lambda value: type(value) is bool or value not in numbers
    raise InvalidPatternError(
        where, "Inside anything but list, either all values are number or string, mixed type is not supported"
    )


_DENIABLE: Final[dict[str, Compile]] = {
    "prefix": _affix(str.startswith),
    "suffix": _affix(str.endswith),
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
}

_OPERATORS: Final[dict[str, Compile]] = {
    **_DENIABLE,
    "exactly": _exactly,
    "exists": _exists,
    "numeric": _numeric,
    "cidr": _cidr,
    "anything-but": _anything_but,
}
