"""Runs a test on asyncio's own event loop and on uvloop: their transports differ in buffering and closing."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
