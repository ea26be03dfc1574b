"""Shapes of values in words, and tables in Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, assert_never

from model.rules.shapes import (
    Boolean,
    Choice,
    Either,
    Field,
    Integer,
    Json,
    ListOf,
    MapOf,
    Number,
    Shape,
    Table,
    Text,
    Timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MADE = "<!-- Made from the code by `python -m docs.making`: change it there. `{module}.py` makes this page. -->\n\n"
_DEFAULT = re.compile(r"\s*\((?:the )?default\b([^)]*)\)")


class Row(NamedTuple):
    """A field at any depth of a table: `path` leads to it."""

    path: str
    field: Field


def head(module: str, title: str) -> str:
    """Return how a page begins: who made it, and its title."""
    return MADE.format(module=module.rpartition(".")[2]) + f"# {title}\n"


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(cell(text) for text in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Return text as a table takes it."""
    return " ".join(text.replace("|", "\\|").split())


def code(text: object) -> str:
    """Return text as code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def value(given: object) -> str:
    """Return a value as YAML would have it."""
    if isinstance(given, bool):
        return f"`{str(given).lower()}`"
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    return f"{given:,}" if isinstance(given, int | float) else code(given)


def flat(fields: Iterable[Field], above: str = "") -> Iterator[Row]:
    """Return the fields of a table and of those inside it, each with the path to it."""
    for field in fields:
        path = f"{above}{field.name}"
        yield Row(path, field)
        yield from inside(field.shape, path)


def inside(shape: Shape, path: str) -> Iterator[Row]:
    """Return the fields that a shape has inside."""
    match shape:
        case Table():
            yield from flat(shape.fields, f"{path}.")
        case ListOf():
            yield from inside(shape.item, f"{path}[]")
        case Either():
            yield from inside(shape.shape, path)
        case _:
            return


def without_default(about: str) -> tuple[str, str]:
    """Split what is said of a field: what it does, and its default, which has a column of its own.

    A bare "(default)" stands behind the value that it means, which stays.
    """
    found = _DEFAULT.search(about)
    return (about, "") if found is None else (_DEFAULT.sub("", about), found[1].lstrip(" :"))


def shape_words(shape: Shape) -> str:  # noqa: C901, PLR0911 - one case per shape
    """Return the type of a value, and its range."""
    match shape:
        case Text():
            return _text(shape)
        case Integer():
            also = "".join(f", or {number}" for number in shape.also)
            return f"integer, {shape.minimum:,} to {_large(shape.maximum)}{also}"
        case Number():
            return f"number, {shape.minimum:,g} to {_large(shape.maximum)}"
        case Boolean():
            return "boolean"
        case Choice():
            return " or ".join(map(code, shape.values))
        case Timestamp():
            return "time: epoch seconds, or ISO 8601 (UTC unless it says otherwise)"
        case ListOf():
            return f"list{_count(shape)}" + (
                ": " + shape_words(shape.item) if not isinstance(shape.item, Table) else ""
            )
        case MapOf():
            most = "" if shape.max_items is None else f", up to {shape.max_items:,}"
            return f"map{most}: {shape_words(shape.key)} → {shape_words(shape.value)}"
        case Table():
            return "table"
        case Json():
            return f"any JSON but null, up to {shape.max_bytes // 1024} KiB"
        case Either():
            return f"`{shape.word}` or {shape_words(shape.shape)}"
        case _:
            assert_never(shape)


def _large(number: float) -> str:
    """Return a number; a power of two that nobody can read, as one."""
    whole = int(number)
    return f"2^{whole.bit_length() - 1}" if whole > 10**9 and whole & (whole - 1) == 0 else f"{number:,}"


def _text(shape: Text) -> str:
    words = shape.means or "text"
    if shape.max_length is not None and shape.max_length != shape.min_length:
        words += f", {f'{shape.min_length} to' if shape.min_length > 1 else 'up to'} {shape.max_length:,} characters"
    return words


def _count(shape: ListOf) -> str:
    if shape.max_items is None:
        return f" of {shape.min_items} or more" if shape.min_items else ""
    if shape.min_items == shape.max_items:
        return f" of {shape.max_items}"
    return f" of {shape.min_items} to {shape.max_items:,}" if shape.min_items else f" of up to {shape.max_items:,}"
