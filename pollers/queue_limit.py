"""How many batches may be with the function at once, by how it failed lately. Pure.

The share given by the state manager is the ceiling. Function errors lower the limit by one, unless the mapping reports
batch item failures (spec 4.2). Every batch that the function takes raises it by one, so that a recovered function gets
back its share within a few rounds. However low it is, one batch is tried; but the state manager is told how low it is,
so that a function without room does not get more pollers. Throttles are not this module's business: they are the
circuit's, for all pollers of a node.
"""

from __future__ import annotations


class ConcurrencyLimit:
    """The limit of one poller."""

    def __init__(self, share: int, *, reduces_on_errors: bool) -> None:
        self._share = share
        self._limit = share
        self._reduces_on_errors = reduces_on_errors

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {self.now}/{self._share}>"

    @property
    def now(self) -> int:
        """Batches that may be with the function."""
        return min(max(1, self._limit), self._share)

    @property
    def room(self) -> int:
        """Batches that the function seems to have room for: one is tried even where that is none."""
        return min(self._limit, self._share)

    @property
    def share(self) -> int:
        """What the state manager allows."""
        return self._share

    @share.setter
    def share(self, share: int) -> None:
        if self._limit >= self._share:  # not reduced: follow upwards at once
            self._limit = share
        self._share = share

    def took(self) -> None:
        """Note that the function answered without an error."""
        self._limit = min(self._share, self.now + 1) if self._limit < self._share else self._share

    def failed(self) -> None:
        """Note a function error: the function was reached."""
        if self._reduces_on_errors:
            self._limit = max(0, self.now - 1)
