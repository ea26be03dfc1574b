"""Page clicks of the imaginary shop's visitors. Pure.

The same seed tells the same story. Clicks of one visitor share a key, so they stay in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import msgspec

_VISITORS = 250
_PAGES = {
    "/": ("/tea", "/coffee", "/search", "/tea"),
    "/search": ("/tea", "/coffee", "/"),
    "/tea": ("/tea/darjeeling", "/tea/teapot", "/"),
    "/coffee": ("/coffee/espresso", "/coffee/grinder", "/"),
    "/tea/darjeeling": ("/cart", "/tea"),
    "/tea/teapot": ("/cart", "/tea", "/tea"),
    "/coffee/espresso": ("/cart", "/coffee"),
    "/coffee/grinder": ("/coffee", "/cart", "/coffee"),
    "/cart": ("/checkout", "/", "/"),
    "/checkout": ("/",),
}
"""Where a visitor may go from a page."""


class ClickEvent(NamedTuple):
    """A click, as it goes to Kinesis."""

    key: str
    data: bytes


class Click(msgspec.Struct):
    """The document of an event."""

    visitor: str
    page: str
    came_from: str
    click_time: str


@dataclass(slots=True)
class Clicks:
    """The visitors, and on which page each is."""

    seed: int = 1
    _random: Random = field(init=False)
    _pages: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 - a story, no secret

    def event(self, click_time: str) -> ClickEvent:
        """Return the next click; `click_time` is ISO 8601."""
        number = self._random.randrange(_VISITORS)
        before = self._pages.get(number, "/")
        page = self._pages[number] = self._random.choice(_PAGES[before])
        visitor = f"v-{number:04}"
        return ClickEvent(visitor, msgspec.json.encode(Click(visitor, page, before, click_time)))
