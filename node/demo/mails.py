"""E-mails that the imaginary shop has to send. Pure.

The same seed tells the same story.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import msgspec

_CUSTOMERS = 400
_KINDS = ("order-confirmation", "order-confirmation", "shipped", "shipped", "invoice", "password-reset")


class Mail(msgspec.Struct):
    """The document of a message: what to send to whom."""

    mail_id: str
    kind: str
    to: str
    language: str
    due_time: str


@dataclass(slots=True)
class Mails:
    """What there is to send."""

    seed: int = 1
    _random: Random = field(init=False)
    _written: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 - a story, no secret

    def body(self, due_time: str) -> str:
        """Return the next message's text; `due_time` is ISO 8601."""
        self._written += 1
        to = f"c-{self._random.randrange(_CUSTOMERS):04}@example.com"
        kind, language = self._random.choice(_KINDS), self._random.choice(("de", "en", "en", "fr"))
        return msgspec.json.encode(Mail(f"m-{self._written:07}", kind, to, language, due_time)).decode()
