"""What a built site would have a browser load from another host. Links that a reader follows are none of it. Pure."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ELSEWHERE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_IN_STYLE = re.compile(r"(?:url\(\s*|@import\s+)['\"]?((?:[a-z][a-z0-9+.-]*:)?//[^'\")\s]+)", re.IGNORECASE)
_IN_SCRIPT = re.compile(r"['\"`](https?://[^'\"`]+)")
_COMMENT = re.compile(r"/\*.*?\*/|^\s*//.*?$", re.DOTALL | re.MULTILINE)
_LOADING = frozenset({"src", "srcset", "poster", "data", "action", "formaction"})
_NAMES = ("http://www.w3.org/",)  # of XML, which nobody loads


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            loads = name in _LOADING or (name in {"href", "xlink:href"} and tag != "a")
            if loads and value and _ELSEWHERE.match(value):
                self.found.append(value)
            if name == "style" and value:
                self.found += _IN_STYLE.findall(value)

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.found += _IN_STYLE.findall(data)
        elif self._inside == "script":
            self.found += in_script(data)

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._inside = ""


def in_page(text: str) -> list[str]:
    """Return the addresses of other hosts that a page (or picture) loads."""
    page = _Page()
    page.feed(text)
    page.close()
    return page.found


def in_style(text: str) -> list[str]:
    """Return those of a style sheet."""
    return _IN_STYLE.findall(_COMMENT.sub("", text))


def in_script(text: str) -> list[str]:
    """Return those that a script has anywhere, for who knows what it does with them."""
    return [url for url in _IN_SCRIPT.findall(_COMMENT.sub("", text)) if not url.startswith(_NAMES)]


_READERS = {".html": in_page, ".svg": in_page, ".css": in_style, ".js": in_script}


def elsewhere(site: Path) -> Iterator[tuple[str, str]]:
    """Return the files of a site that load something from elsewhere, and what."""
    for path in sorted(site.rglob("*")):
        if (read := _READERS.get(path.suffix)) is not None and path.name != "searchindex.js":  # words of the pages
            for url in read(path.read_text()):
                yield str(path.relative_to(site)), url
