"""What a configured value may look like, as data: read by the checker (`checking`) and by the JSON Schema.

A shape says nothing about where the value stands or which source it belongs to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Text:
    """A string. `means` says in words what `pattern` (matched completely) asks for."""

    min_length: int = 0
    max_length: int | None = None
    pattern: re.Pattern[str] | None = None
    means: str = ""
    secret: bool = False  # never shown in a problem

    def __post_init__(self) -> None:
        if self.pattern is not None and not self.means:
            raise ValueError("a pattern needs words for it")


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number; `also` lists values outside the range that are fine."""

    minimum: int
    maximum: int
    also: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Number:
    """A number of any kind, finite."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, listed in AWS's order."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A point in time: epoch seconds, ISO 8601 text or a YAML date. Without an offset it is UTC."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list."""

    item: Shape
    min_items: int = 0
    max_items: int | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping whose keys the user chooses."""

    key: Text
    value: Shape
    max_items: int | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table."""

    name: str
    shape: Shape
    about: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping with known keys."""

    fields: tuple[Field, ...]
    by_name: Mapping[str, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {known.name: known for known in self.fields})


@dataclass(frozen=True, slots=True)
class Either:
    """The word `word`, or the other shape."""

    word: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Json:
    """Any JSON value but null, of so many bytes at most when it is written without spaces."""

    max_bytes: int


Shape = Text | Integer | Number | Boolean | Choice | Timestamp | ListOf | MapOf | Table | Either | Json


def text(pattern: str, means: str, *, longest: int | None = None, secret: bool = False) -> Text:
    """Make a `Text` that must match `pattern` completely."""
    return Text(pattern=re.compile(pattern), means=means, max_length=longest, secret=secret)
