"""Event loops for tests: both real ones, whose transports differ in buffering and closing, and virtual time."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import looptime
import pytest
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


_T = TypeVar("_T")


def fast_forwarded(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run in virtual time: for a property, whose examples need a loop each."""
    loop = looptime.new_event_loop(start=0)
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make two tests of one coroutine function."""

    @functools.wraps(test)
    def run(loop_name: str, **kwargs: Any) -> None:
        # Not asyncio.Runner: it would unset the loop that pytest-asyncio keeps for the tests around.
        loop = _FACTORIES[loop_name]()
        try:
            loop.run_until_complete(test(**kwargs))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    signature = inspect.signature(test)
    name = inspect.Parameter("loop_name", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # pytest reads the arguments from here
        parameters=[name, *signature.parameters.values()], return_annotation=None
    )
    made: Callable[..., None] = pytest.mark.parametrize("loop_name", _FACTORIES)(run)
    return made
