"""Text that may hold secrets or references to them. It never shows itself by accident."""

from __future__ import annotations

import re
from typing import Protocol

REFERENCE = re.compile(r"\$\{(env|file|secretsmanager):([^}]+)\}")
"""A secret reference inside text (contract section 2)."""


class SecretText:
    """Configured text, taken as secret whether or not it holds a reference.

    `repr`, `str` and formatting show the references and mask everything else, so a header written out in full in a
    configuration file is as safe in a log as one that comes from the environment.
    """

    __slots__ = ("_template",)

    def __init__(self, template: str) -> None:
        self._template = template

    @property
    def template(self) -> str:
        """The text as configured. For resolvers only: never log it."""
        return self._template

    def references(self) -> list[tuple[str, str]]:
        """Return the (scheme, name) of each reference, in order."""
        return REFERENCE.findall(self._template)

    def __str__(self) -> str:
        """Return the references with everything around them masked."""
        shown = [f"${{{scheme}:{name}}}" for scheme, name in self.references()]
        literal = REFERENCE.sub("", self._template).strip()
        return " ".join([*(["***"] if literal else []), *shown])

    def __repr__(self) -> str:
        return f"SecretText({self!s})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and other._template == self._template

    def __hash__(self) -> int:
        return hash(self._template)


class SecretResolver(Protocol):
    """Finds what references stand for. Implemented by `config.secrets`."""

    async def resolve(self, text: SecretText) -> str:
        """Return the text with every reference replaced; fresh enough that a rotated secret is noticed within minutes.

        Raises `RefusedError` when a reference names nothing, `UnavailableError` when its keeper does not answer; the
        message names the reference, never a value.
        """
