"""What is wrong with a configuration, each problem with its place and the rule it breaks."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_:-]*")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One broken rule. `path` reads like `event_source_mappings[2].BatchSize`."""

    path: str
    rule: str
    file: str = ""
    line: int = 0  # 1-based; 0: unknown

    def __str__(self) -> str:
        """Return `file:line: path: rule`, leaving out what is not known."""
        place = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.path}: {self.rule}" if self.path else f"{place}{self.rule}"


def child_path(path: str, key: str | int) -> str:
    """Return the path of an entry: `.KEY`, `["odd key"]` or `[INDEX]` below `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{json.dumps(key)}]"
    return f"{path}.{key}" if path else key


class InvalidConfigurationError(Exception):
    """A configuration broke at least one rule; `problems` lists all of them, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
