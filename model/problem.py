"""What is wrong with a configuration, each problem with its place and the rule it breaks."""

from __future__ import annotations

from dataclasses import dataclass


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


class InvalidConfigurationError(Exception):
    """A configuration broke at least one rule; `problems` lists all of them, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
