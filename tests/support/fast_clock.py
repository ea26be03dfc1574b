"""A wall clock that runs fast, or is set wrong, for one process of a test: `time.time` alone, nothing that measures.

`environment` puts a `sitecustomize` before the process's own modules; the node itself knows nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CUSTOMIZE = """
import time

_real, _base_s, _speed, _ahead_s = time.time, {base_s!r}, {speed!r}, {ahead_s!r}
time.time = lambda: _base_s + (_real() - _base_s) * _speed + _ahead_s
"""


def environment(folder: Path, *, base_s: float, speed: float = 1.0, ahead_s: float = 0.0) -> dict[str, str]:
    """Return the variables of a process whose clock was right at `base_s` (epoch seconds), but for `ahead_s`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CUSTOMIZE.format(base_s=base_s, speed=speed, ahead_s=ahead_s))
    return {"PYTHONPATH": str(folder)}
