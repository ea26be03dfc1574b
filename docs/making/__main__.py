"""Write every page of `docs/reference`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from docs.making import commands, errors, functions, mappings, metrics, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parents[1] / "reference"

PAGES: Mapping[str, Callable[[], str]] = {
    "mappings.md": mappings.page,
    "functions.md": functions.page,
    "settings.md": settings.page,
    "commands.md": commands.page,
    "metrics.md": metrics.page,
    "errors.md": errors.page,
}


def main() -> None:
    """Write those that are not as they should be."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    main()
