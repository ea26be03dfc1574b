"""Bugs of the classic kinds, planted into the product's own code while a simulation runs: it must find each of them.

A plant changes a piece of the source text of one function and compiles it anew, so that it goes with the code as that
changes: where the piece is not there any more, planting fails, and the plant has to be thought over.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug: in `function`, `MODULE:NAME`, each first text becomes the second. `shown_by`: a seed that showed it."""

    function: str
    changes: tuple[tuple[str, str], ...]
    shown_by: int = 0

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug in the product for the length of the block."""
        function = self._find()
        healthy = function.__code__
        function.__code__ = self._compile(function)
        try:
            yield
        finally:
            function.__code__ = healthy

    def _find(self) -> Any:
        module, _, path = self.function.partition(":")
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        return found

    def _compile(self, function: Any) -> CodeType:
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in self.changes:
            if source.count(old) != 1:
                raise ValueError(f"{self.function}: {old!r} is there {source.count(old)} times")
            source = source.replace(old, new)
        flags = __future__.annotations.compiler_flag
        module = compile(source, inspect.getfile(function), "exec", flags=flags, dont_inherit=True)
        space: dict[str, Any] = dict(function.__globals__)
        exec(module, space)  # noqa: S102 - the product's own source
        made: CodeType = space[function.__name__].__code__
        return made


_STORE = "statemgr.memory_store:MemoryStore"
_SAVE = "statemgr.memory_progress:MemoryProgress.save"
_OLDER = "if newest > update.token:"

PLANTS: dict[str, Plant] = {
    "no token on the checkpoint": Plant(_SAVE, ((_OLDER, "if False:"),), shown_by=22),
    "tokens compared as text": Plant(_SAVE, ((_OLDER, "if str(newest) > str(update.token):"),), shown_by=143),
    "present token taken for an old one": Plant(_SAVE, ((_OLDER, "if newest >= update.token:"),)),
    "trust counted from the reply": Plant(
        "leasing.keeper:Keeper._keep", (("session.term.renewed(asked_at)", "session.term.renewed(self._clock())"),)
    ),
    "release without owner check": Plant(f"{_STORE}.release", (("!= Holding(lease.node, lease.token)", "is None"),)),
    "child before its parents": Plant(
        "statemgr.lineage:trace",
        (("return all(parent not in present or done(parent) for parent in shard.parents)", "return True"),),
    ),
    "checkpoint past a gap": Plant(
        "pollers.positions:Positions._mark",
        (("self._reach(self._position(count - 1))", "self._reach(self._position(max(count - 1, ours.rfind(_DONE))))"),),
    ),
    "retries forgotten at hand-over": Plant(
        "pollers.standing:Standing.__init__", (("inherited(stored.attempts, drained=drained)", "{}"),)
    ),
    "moved while it is held": Plant(
        "statemgr.manager:next_step",
        (("Step(withdraw=True, until_released=True, move=True)", "Step(withdraw=True, move=True)"),),
    ),
    "group over a moved checkpoint": Plant(
        "pollers.sources.kafka:KafkaSource._standing", (("origin == PUT and start is not None", "False"),)
    ),
    "renewed after stepping down": Plant(
        "leasing.keeper:Keeper._keep",
        (
            ("if session.over is not None:", "if False:"),
            ("if not session.term.trusted(asked_at):", "if False:"),
            ("min(self.call_s, session.term.trusted_until - asked_at)", "self.call_s"),
            ("if session.ended() or not session.term.trusted(self._clock()):", "if False:"),
        ),
    ),
}
