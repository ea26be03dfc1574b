"""Waiting at start-up for what a node cannot do without, and saying so.

One clear line tells what is being waited for and why it failed; it comes again now and then, and again when the wait
is over. Running out of time ends the process with status 3.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import structlog

from model.errors import UnavailableError
from model.problem import InvalidConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

START_LIMIT_S = 60.0
"""How long a node waits for Redis and for each broker before it gives up, unless told otherwise."""

START_LIMIT_VARIABLE = "ESMD_START_LIMIT"
"""Tells otherwise, in seconds: for a supervisor that would rather see the exit status soon."""

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
LONGEST_PROBE_S = 5.0
REPEAT_S = 10.0


class NotReachedInTimeError(UnavailableError):
    """A needed component could not be reached in time (exit status 3)."""


def without_credentials(url: str) -> str:
    """Return a URL as it may be shown: user name, password, query and fragment left out.

    Text that is no URL (`host:port`) comes back without anything before an `@`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable address)"
    if not parts.netloc:
        return url.rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def start_limit_s(environ: Mapping[str, str]) -> float:
    """Return the limit in force. Raises `InvalidConfigurationError`."""
    text = environ.get(START_LIMIT_VARIABLE, "").strip()
    if not text:
        return START_LIMIT_S
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = math.nan
    if not 0 <= limit_s < math.inf:
        raise InvalidConfigurationError([Problem(START_LIMIT_VARIABLE, f"{text!r} is not a number of seconds")])
    return limit_s


async def wait_for(what: str, probe: Callable[[], Awaitable[None]], *, limit_s: float | None = None) -> None:
    """Return once `probe` succeeds; raise `NotReachedInTimeError` when it has not within `limit_s`.

    None: within what ESMD_START_LIMIT says, a minute by default.

    `what` names the component with its address (`without_credentials`), since it is logged. A probe that raises
    `UnavailableError` or `OSError`, or hangs, is tried again; any other error is the caller's. Cancellable throughout.
    """
    limit_s = start_limit_s(os.environ) if limit_s is None else limit_s
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    due_at = started_at + limit_s
    say_at = started_at
    pause_s = FIRST_PAUSE_S
    last = ""
    while True:
        attempt_s = min(LONGEST_PROBE_S, max(due_at - loop.time(), FIRST_PAUSE_S))
        try:
            async with asyncio.timeout(attempt_s):
                await probe()
        except TimeoutError:
            last = f"no answer within {attempt_s:.1f} s"
        except (UnavailableError, OSError) as error:
            last = " ".join(str(error).split()) or type(error).__name__
        else:
            if last:
                log.info("startup.reached", what=what, after_s=round(loop.time() - started_at, 1))
            return
        now = loop.time()
        if now >= due_at:
            raise NotReachedInTimeError(f"{what} could not be reached within {limit_s:g} s: {last}")
        if now >= say_at:
            log.warning("startup.waiting", what=what, error=last, gives_up_in_s=round(due_at - now, 1))
            say_at = now + REPEAT_S
        await asyncio.sleep(min(pause_s * random.uniform(0.8, 1.2), due_at - now))  # noqa: S311 - jitter
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
