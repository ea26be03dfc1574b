"""How often Python looks for reference cycles in a node: seldom, since almost nothing in it makes any.

Records are on their way by the thousand and are freed by their counts. With Python's defaults each of them is looked
at several times before that, and with it all that was loaded at the start: a fifth of a node's CPU time under load.
"""

from __future__ import annotations

import gc

# Tracked objects more than before: some thousand records in hand are no reason to look. Then, in the same order, how
# many looks at the young make one at the middle-aged, and how many of those one at everything that is not frozen.
_THRESHOLDS = (50_000, 20, 20)


def settle() -> None:
    """Leave alone for good what exists now, the modules and the node's parts, and look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
