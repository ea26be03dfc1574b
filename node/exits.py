"""Which exit status and which message an error ends the process with (contract section 1). Pure.

The only place that knows. Commands raise; they do not print errors or pick numbers, except for answers that are
statuses themselves (`esmd filter`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from model.errors import EsmdError, UnavailableError
from model.problem import InvalidConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


class ExitStatus(IntEnum):
    """What the process's exit status means."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # bad usage or configuration
    UNREACHABLE = 3  # a needed component could not be reached in time


@dataclass(frozen=True, slots=True)
class Ending:
    """How to end: the status, and what to say on standard error."""

    status: ExitStatus
    lines: tuple[str, ...]
    expected: bool = True  # False: a defect of ours; its traceback would help


def ending_for(error: BaseException) -> Ending:
    """Return how the process ends after `error`; of an exception group, the part that tells users most."""
    return min((_ending(leaf) for leaf in _leaves(error)), key=_least_telling)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _ending(error: BaseException) -> Ending:
    match error:
        case InvalidConfigurationError():
            return Ending(ExitStatus.USAGE, tuple(str(problem) for problem in error.problems))
        case UnavailableError():
            return Ending(ExitStatus.UNREACHABLE, (f"esmd: {_text(error)}",))
        case EsmdError():
            return Ending(ExitStatus.FAILED, (f"esmd: {_text(error)}",))
        case KeyboardInterrupt():
            return Ending(ExitStatus.FAILED, ("esmd: interrupted",))
        case OSError():
            return Ending(ExitStatus.FAILED, (f"esmd: {_text(error)}",))
        case _:
            return Ending(
                ExitStatus.FAILED,
                (f"esmd: unexpected {type(error).__name__}: {_text(error)} (--debug shows where)",),
                expected=False,
            )


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _least_telling(ending: Ending) -> tuple[bool, int]:
    """Rank a defect before everything, since what else failed may follow from it; then by what users can mend."""
    order = {ExitStatus.USAGE: 0, ExitStatus.FAILED: 1, ExitStatus.UNREACHABLE: 2, ExitStatus.DONE: 3}
    return (ending.expected, order[ending.status])
