"""An incremental fetch session with one broker (KIP-227): what it knows of us, so that requests name only changes.

Without a session each fetch names every partition and each answer lists them all, so that the work for a fetch grows
with their number while what it brings does not. With one the broker remembers partitions and offsets; a request names
those that are new or have moved and those to forget, and an answer those that have something to say.

Whenever it is not certain that both sides remember the same, the next request names everything and begins a new
session: after a request without an answer, a session the broker does not have or counts otherwise, an answer that does
not fit. A broker that gives no session (number 0) is told everything each time. Pure; one per broker and consumer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_NO_SESSION = 0
_BEGIN = 0  # the epoch that ends the session named, if any, and asks for a new one
_LAST_EPOCH = 2**31 - 1
_SESSION_NOT_FOUND = 70  # the broker's error: evicted by others' sessions, or the broker has restarted


class Ask(NamedTuple):
    """What a fetch request has to say."""

    session_id: int
    epoch: int
    changed: Collection[tuple[int, int]]  # partition and offset
    forgotten: Collection[int]


class FetchSession:
    """Turns what is wanted of a broker into what it has to be told. Partitions are those of one topic."""

    def __init__(self) -> None:
        self._id = _NO_SESSION
        self._epoch = _BEGIN  # of the next request
        self._asked_epoch = _BEGIN
        self._asking = False
        self._anew = False
        self._told: Mapping[int, int] = {}
        self._failing: set[int] = set()  # the broker's last word on them was an error
        self._answered_ms: int | None = None

    def __repr__(self) -> str:
        return f"<FetchSession {self._id} epoch={self._epoch} partitions={len(self._told)}>"

    def begin_anew(self) -> None:
        """Have the next request name everything and its answer too: somebody has to learn where partitions end."""
        self._anew = True

    def ask(self, wanted: Mapping[int, int]) -> Ask:
        """Return what makes the broker fetch this and nothing else: offsets by partition.

        The mapping is kept and must not change. To be called only for a request that is then sent.
        """
        if self._asking or self._anew:
            self._epoch = _BEGIN  # after a request without an answer nobody knows whether the broker has seen it
        told, self._told = self._told, wanted
        self._asking, self._anew = True, False
        self._asked_epoch = self._epoch
        if self._epoch == _BEGIN:
            return Ask(self._id, _BEGIN, wanted.items(), [])
        changed = [(partition, offset) for partition, offset in wanted.items() if told.get(partition) != offset]
        return Ask(self._id, self._epoch, changed, told.keys() - wanted.keys())

    def answered(self, session_id: int, error: int, named: Iterable[tuple[int, int]], *, now_ms: int) -> bool:
        """Take note of an answer: which session it is of, its error code, and those of the partitions it names.

        False: it is of no use, and nothing in it may be believed. What it names must then be thrown away.
        """
        began = self._asked_epoch == _BEGIN
        self._asking = False
        self._epoch = _BEGIN
        if error:
            if error == _SESSION_NOT_FOUND:
                self._id = _NO_SESSION
            return False
        errors = dict(named)
        if not errors.keys() <= self._told.keys() or (not began and session_id not in {_NO_SESSION, self._id}):
            return False
        whole = not began or len(errors) == len(self._told)
        self._id = session_id
        if session_id != _NO_SESSION and whole:
            self._epoch = 1 if self._asked_epoch == _LAST_EPOCH else self._asked_epoch + 1
        self._failing = {partition for partition in self._failing if partition in self._told} - errors.keys()
        self._failing |= {partition for partition, code in errors.items() if code}
        if not began:
            self._answered_ms = now_ms
        return True

    def heard_ms(self, partition: int) -> int | None:
        """Return when the broker last had a chance to say something of a partition, and had nothing new to say.

        An answer within a session is one for all of its partitions, except for those whose last word was an error:
        the broker names them in each answer until the error is over.
        """
        return self._answered_ms if partition in self._told and partition not in self._failing else None
