"""The garbage collector's settings of a node."""

from __future__ import annotations

import gc
import subprocess
import sys

_SETTLED = """
import gc
from node.collector import settle
settle()
gc.disable()  # nothing happens by itself while we look
class Ring: pass
ring = Ring(); ring.itself = ring
del ring
print(gc.get_freeze_count() > 1000, gc.get_threshold()[0] >= 10_000, gc.collect() > 0)
"""


def test_settled_node_freezes_what_it_loaded_and_still_collects_cycles() -> None:
    """What was loaded is never looked at again, and cycles made later are still found."""
    gc.unfreeze()  # a node that ran in this process before has settled too
    told = subprocess.run([sys.executable, "-c", _SETTLED], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["True", "True", "True"]
    assert gc.get_freeze_count() == 0  # the settings are those of the other process
