"""How a broken rule reads: in AWS's words for a mapping, in ours for everything else.

AWS's words are those recorded in the specification (sections 1.3 and 7.5); what AWS says elsewhere follows their form.
"""

from __future__ import annotations

import difflib
from datetime import date
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Place = tuple[str | int, ...]
"""Keys and list indexes on the way from the document's root to a value."""

_LONGEST_SHOWN = 100
_CONSTRAINT = "failed to satisfy constraint"

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    (dict, "a mapping"),
    ((list, tuple), "a list"),
    (date, "a date"),
)

NO_SOURCE = "Unrecognized event source."
BAD_PATTERN = "Invalid filter pattern definition."
WINDOW_FOR_BIG_BATCH = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"


def unsupported(parameter: str) -> str:
    """Say that a parameter does not belong to the mapping's kind of source."""
    return f"Unsupported {parameter} parameter for given event source mapping type."


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Say that a key is unknown, and which one may have been meant."""
    choices = list(known)
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    if near:
        return f"unknown key; did you mean {by_lower[near[0]]}?"
    return "unknown key" if len(choices) > 12 or not choices else f"unknown key; known here: {', '.join(choices)}"  # noqa: PLR2004 - as many names as fit a line


def kind_of(value: object) -> str:
    """Name the kind of a value without showing it."""
    if value is None:
        return "nothing"
    return next((name for kinds, name in _KINDS if isinstance(value, kinds)), "something else")


def wrong_kind(wanted: str, value: object) -> str:
    """Say which kind of value belongs here."""
    quotes = "; put it in quotes" if wanted == "text" and isinstance(value, (bool, int, float)) else ""
    return f"must be {wanted}, not {kind_of(value)}{quotes}"


class Voice(Protocol):
    """One way to word broken rules. `shown` is None when the value must not be shown."""

    def missing(self, at: Place) -> str:
        """Say that a required value is absent."""

    def low(self, at: Place, shown: str | None, minimum: float) -> str:
        """Say that a number lies below its range."""

    def high(self, at: Place, shown: str | None, maximum: float) -> str:
        """Say that a number lies above its range."""

    def short(self, at: Place, shown: str | None, minimum: int) -> str:
        """Say that text or a list is too short."""

    def long(self, at: Place, shown: str | None, maximum: int) -> str:
        """Say that text or a list is too long."""

    def form(self, at: Place, shown: str | None, means: str) -> str:
        """Say that text is not in the form asked for."""

    def choice(self, at: Place, shown: str | None, values: Sequence[str]) -> str:
        """Say that a word is not among the choices."""


class AwsVoice:
    """`Value 'x' at 'startingPosition' failed to satisfy constraint: …`."""

    def missing(self, at: Place) -> str:
        """Word it as the API does for a null member."""
        return self._constraint(at, "null", "not be null.")

    def low(self, at: Place, shown: str | None, minimum: float) -> str:
        """Word it as the API does."""
        return self._constraint(at, _quoted(shown), f"have value greater than or equal to {minimum}")

    def high(self, at: Place, shown: str | None, maximum: float) -> str:
        """Word it as the API does."""
        return self._constraint(at, _quoted(shown), f"have value less than or equal to {maximum}")

    def short(self, at: Place, shown: str | None, minimum: int) -> str:
        """Word it as the API does."""
        return self._constraint(at, _quoted(shown), f"have length greater than or equal to {minimum}")

    def long(self, at: Place, shown: str | None, maximum: int) -> str:
        """Word it as the API does."""
        return self._constraint(at, _quoted(shown), f"have length less than or equal to {maximum}")

    def form(self, at: Place, shown: str | None, means: str) -> str:
        """Word it as the API does, with words in the place of its regular expression."""
        return self._constraint(at, _quoted(shown), f"be {means}")

    def choice(self, at: Place, shown: str | None, values: Sequence[str]) -> str:
        """Word it as the API does."""
        return self._constraint(at, _quoted(shown), f"satisfy enum value set: [{', '.join(values)}]")

    def _constraint(self, at: Place, value: str, rule: str) -> str:
        return f"Value {value} at '{_member(at)}' {_CONSTRAINT}: Member must {rule}"


class OwnVoice:
    """Short sentences for our own sections."""

    def missing(self, at: Place) -> str:
        """Name what is missing."""
        return f"{at[-1]} is required" if at else "is required"

    def low(self, at: Place, shown: str | None, minimum: float) -> str:  # noqa: ARG002 - one interface
        """Say the least value."""
        return f"must be {minimum:g} or more{_not(shown)}"

    def high(self, at: Place, shown: str | None, maximum: float) -> str:  # noqa: ARG002 - one interface
        """Say the largest value."""
        return f"must be {maximum:g} or less{_not(shown)}"

    def short(self, at: Place, shown: str | None, minimum: int) -> str:  # noqa: ARG002 - one interface
        """Say that it must not be empty, or how long it must be."""
        return "must not be empty" if minimum == 1 else f"must have length {minimum} or more"

    def long(self, at: Place, shown: str | None, maximum: int) -> str:  # noqa: ARG002 - one interface
        """Say the largest length."""
        return f"must have length {maximum} or less"

    def form(self, at: Place, shown: str | None, means: str) -> str:  # noqa: ARG002 - one interface
        """Say the form."""
        return f"must be {means}{_not(shown)}"

    def choice(self, at: Place, shown: str | None, values: Sequence[str]) -> str:  # noqa: ARG002 - one interface
        """List the choices."""
        return f"must be one of {', '.join(values)}{_not(shown)}"


def api_error(rules: Sequence[str]) -> tuple[str, str]:
    """Return AWS's error type and message for the rules a request broke.

    AWS reports broken constraints of single members together and before anything else, then one rule at a time.
    """
    constraints = [rule for rule in rules if rule.startswith("Value ") and _CONSTRAINT in rule]
    if not constraints:
        return "InvalidParameterValueException", rules[0]
    count = f"{len(constraints)} validation error{'s' if len(constraints) > 1 else ''} detected: "
    return "ValidationException", count + "; ".join(constraints)


def shown(value: object) -> str:
    """Print a value as AWS does, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    printed = str(value)
    return printed if len(printed) <= _LONGEST_SHOWN else printed[: _LONGEST_SHOWN - 1] + "…"


def _quoted(value: str | None) -> str:
    return "***" if value is None else f"'{value}'"


def _not(value: str | None) -> str:
    return "" if value is None else f", not {value}"


def _member(at: Place) -> str:
    # Members begin with a small letter, list items count from 1, a map's own keys such as KAFKA_… stay as they are.
    return ".".join(
        f"{part + 1}.member" if isinstance(part, int) else part if part.isupper() else part[:1].lower() + part[1:]
        for part in at
    )
