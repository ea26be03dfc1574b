"""`esmd top`: the fleet live in a terminal, as any of its nodes knows it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.live import Live

    from node.top_view import Choice, Courses

_PATH = "/esmd/v1/status"
_LOOK_S = 0.1


@click.command("top")
@click.option("--once", is_flag=True, help="Print one frame and end: rates are taken over one interval.")
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="Any node of the fleet."
)
def top_command(*, once: bool, interval: float, url: str) -> None:
    """Show nodes, mappings with rates and lag, and the shards of one of them, live.

    Keys: q ends it, the arrows choose a mapping, / finds by name. ESMD_TOKEN holds the token of a node that wants one.
    """
    from node.client import NodeRefusedError, get_json  # noqa: PLC0415 - not for `esmd --help`
    from node.top_view import Courses  # noqa: PLC0415 - same

    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("esmd top needs a terminal; --once prints one frame")
    courses = Courses()
    first = get_json(url, _PATH)
    try:
        courses.take(first, at=time.monotonic())
        if once:
            _print_once(url, courses, interval)
        else:
            _follow(url, first, courses, interval)
    except (KeyError, TypeError, AttributeError) as error:
        raise NodeRefusedError(f"the node at {url} speaks another version of esmd: use status --json") from error
    except KeyboardInterrupt:
        return


def _print_once(url: str, courses: Courses, interval: float) -> None:
    from node.client import get_json  # noqa: PLC0415 - not for `esmd --help`
    from node.printing import console  # noqa: PLC0415 - same
    from node.top_view import Choice, screen  # noqa: PLC0415 - same

    time.sleep(interval)
    document = get_json(url, _PATH)
    courses.take(document, at=time.monotonic())
    out = console()
    out.print(screen(document, courses, Choice(), width=out.width))


def _follow(url: str, document: dict[str, Any], courses: Courses, interval: float) -> None:
    """Draw at every document and every key, until the user has seen enough."""
    from rich.live import Live  # noqa: PLC0415 - not for `esmd --help`

    from node.printing import console  # noqa: PLC0415 - same
    from node.terminal import documents, keys  # noqa: PLC0415 - same
    from node.top_view import Choice  # noqa: PLC0415 - same

    choice, trouble = Choice(), None
    whole_screen = Live(console=console(), screen=True, auto_refresh=False, vertical_overflow="crop")
    with keys(_LOOK_S) as pressed, documents(url, _PATH, interval) as newest, whole_screen as live:
        _draw(live, document, courses, choice, trouble)
        while True:
            typed = pressed()
            for key in typed:
                if not choice.press(key, document):
                    return
            news = newest()
            if isinstance(news, dict):
                document, trouble = news, None
                courses.take(document, at=time.monotonic())
            elif news is not None:
                trouble = news
            if typed or news is not None:
                _draw(live, document, courses, choice, trouble)


def _draw(live: Live, document: dict[str, Any], courses: Courses, choice: Choice, trouble: str | None) -> None:
    from node.top_view import screen  # noqa: PLC0415 - not for `esmd --help`

    size = live.console.size
    drawn = screen(document, courses, choice, width=size.width, height=size.height, trouble=trouble)
    live.update(drawn, refresh=True)
