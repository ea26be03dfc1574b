"""Logging: structlog to standard error, for people (console) or for machines (JSON lines).

Libraries log through the standard library; their warnings and errors come out in the same form, and a line that a
library repeats over and over (a broker that is away) is counted instead of printed.
Nothing here shows local variables of a traceback: they hold records and credentials.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO, cast

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from structlog.typing import Processor

    class FilteringLogger(Protocol):
        """What library lines are written to."""

        def log(self, level: int, event: str, **data: object) -> object:
            """Write one line."""


REPEAT_S = 30.0
"""A library's line is shown at most so often; what was left out in between is counted on the next."""

_MOST_LINES = 1000
_LONGEST_MESSAGE = 2000


def configure(log_format: str = "console", *, debug: bool = False, stream: TextIO | None = None) -> None:
    """Set up logging of the whole process. `stream` is standard error unless given."""
    out = stream if stream is not None else sys.stderr
    renderers: list[Processor]
    if log_format == "json":
        renderers = [structlog.processors.format_exc_info, _json]
    else:
        plain = structlog.dev.plain_traceback  # the default would show local variables
        renderers = [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain, pad_event_to=24)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        # Methods of levels that are off do nothing at all, whatever their arguments.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", LossyStream(out))),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LibraryLines)]:
        root.removeHandler(handler)
    root.addHandler(LibraryLines(structlog.get_logger()))
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


class LossyStream:
    """A stream that drops what cannot be written: the reader of a pipe is gone, the disk is full.

    A log line must not break the work it reports on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or drop."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or drop."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class LibraryLines(logging.Handler):
    """Writes what libraries log into our log, each message text at most every `repeat_s`.

    Lines are the same when logger, level and message template are: only the first one's arguments are shown.
    """

    def __init__(
        self, log: FilteringLogger, *, repeat_s: float = REPEAT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._log = log
        self._repeat_s = repeat_s
        self._clock = clock
        self._shown: dict[tuple[str, int, str], tuple[float, int]] = {}  # when last shown, left out since

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or count it."""
        try:
            line = (record.name, record.levelno, str(record.msg))
            now = self._clock()
            shown_at, left_out = self._shown.get(line, (float("-inf"), 0))
            if now - shown_at < self._repeat_s:
                self._shown[line] = (shown_at, left_out + 1)
                return
            if len(self._shown) >= _MOST_LINES:  # templates with values in them: forget all rather than grow
                self._shown.clear()
            self._shown[line] = (now, 0)
            data: dict[str, Any] = {"library": record.name, "message": record.getMessage()[:_LONGEST_MESSAGE]}
            if left_out:
                data["repeated"] = left_out
            if record.exc_info and record.exc_info[1] is not None:
                data["exc_info"] = record.exc_info
            self._log.log(record.levelno, "library.log", **data)
        except Exception:  # noqa: BLE001 - a log line never breaks what it reports on; this is logging's own protocol
            self.handleError(record)


def _json(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
    """Render as one JSON object, time, level and event first; what JSON has no form for shows as `str` does.

    For a secret that is its mask, also inside dataclasses and containers.
    """
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    ordered.update(event)
    try:
        return msgspec.json.encode(ordered, enc_hook=str).decode()
    except (TypeError, ValueError):  # odd dictionary keys, lone surrogates, integers beyond 64 bits
        plain = {key: str(value).encode("utf-8", "backslashreplace").decode() for key, value in ordered.items()}
        return msgspec.json.encode(plain).decode()
