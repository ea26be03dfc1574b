"""A redrive over fakes: an archive in memory, a function that follows a script, a source that may have lost records."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from model.ids import ShardId, ShardKey
from model.mapping import EventSourceMapping
from model.outcome import Delivered
from model.record import Places
from pollers.counters import Counters
from pollers.failure_document import Failure
from pollers.pump_parts import PumpParts
from pollers.redriving.archive import Found, Reread
from pollers.redriving.documents import DocumentReader
from pollers.redriving.job import Redrive, Wishes
from pollers.retrying import Condition, RetryPolicy
from tests.support.failures import ENVELOPE, FUNCTION_ARN, MAPPING, SOURCE, documents
from tests.support.pump_fakes import open_gate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.errors import EsmdError
    from model.invocation import Invocation
    from model.outcome import Outcome
    from model.record import Record, Records
    from pollers.redriving.documents import Span
    from pollers.redriving.job import Counts

AT_MS = 1573691886021.0


def records(*offsets: int, partition: int = 0) -> Records:
    """Make records of the topic."""
    raws = [
        SimpleNamespace(
            topic="orders", partition=partition, timestamp=offset, timestamp_type=0, headers=(), key=b"k", value=b"v"
        )
        for offset in offsets
    ]
    return ENVELOPE.encode(ShardId(f"orders-{partition}"), raws, Places(offsets))


def failed(*offsets: int, partition: int = 0, at_ms: float = AT_MS) -> Failure:
    """Make a failure of records at these offsets."""
    return Failure(
        shard=ShardKey(MAPPING, ShardId(f"orders-{partition}")),
        records=records(*offsets, partition=partition),
        condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
        invocations=2,
        outcome=None,
        at_ms=at_ms,
        id=uuid.uuid4(),
    )


class MemoryArchive:
    """Documents in memory, read page by page; what was read and not removed is there for the next archive on it."""

    def __init__(self, stored: dict[str, bytes], *, page: int = 4) -> None:
        self.stored = stored
        self.errors: deque[EsmdError] = deque()  # raised by the next calls
        self.kept: list[tuple[str, bool]] = []
        self.removed: list[str] = []
        self.watched = False
        self.closed = False
        self._todo = list(stored)
        self._page = page

    async def count(self) -> int | None:
        """Count them."""
        return len(self.stored)

    async def read(self) -> list[Found] | None:
        """Return the next page."""
        await self._call()
        names, self._todo = self._todo[: self._page], self._todo[self._page :]
        return [Found(name, self.stored[name], name) for name in names] or None

    async def remove(self, found: Sequence[Found]) -> None:
        """Forget documents."""
        await self._call()
        for one in found:
            self.removed.append(one.name)
            self.stored.pop(one.handle, None)

    def keep(self, found: Sequence[Found], *, foreign: bool = False) -> None:
        """Remember."""
        self.kept += [(one.name, foreign) for one in found]

    async def watch(self) -> None:
        """Be watched until cancelled."""
        self.watched = True
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Remember."""
        self.closed = True

    async def _call(self) -> None:
        await asyncio.sleep(0.001)
        if self.errors:
            raise self.errors.popleft()


class RedriveRig:
    """One mapping's function and archive. Several redrives may follow each other on the same archive's content."""

    def __init__(self, *, batch_size: int = 10, partial_responses: bool = False) -> None:
        self.stored: dict[str, bytes] = {}
        self.archive = MemoryArchive(self.stored)
        self.answer: Callable[[list[int]], Outcome] = lambda _offsets: Delivered()
        self.invocations: list[Invocation] = []
        self.calls: list[list[int]] = []
        self.called_at: list[float] = []
        self.in_source: Sequence[Record] = []
        self.token = 7
        self.stop = asyncio.Event()
        self.told: list[tuple[str, ...]] = []
        self.counters = Counters()
        self.gate = open_gate(self.counters)
        self.parts = PumpParts(
            mapping=EventSourceMapping(
                id=MAPPING, name="orders", function_name="f", source=SOURCE, batch_size=batch_size
            ),
            source=cast("Any", None),
            envelope=ENVELOPE,
            filter=None,
            target=self,
            gate=self.gate,
            policy=RetryPolicy(partial_responses=partial_responses, in_order=False, maximum_retry_attempts=3),
            counters=self.counters,
            checkpointer=cast("Any", None),
            random=Random(5),
        )

    def put(self, *failures: Failure, payload: bool = True) -> None:
        """Store documents, named by their offsets."""
        made = documents()
        for one in failures:
            name = f"{one.shard.shard}:{','.join(str(record.position) for record in one.records)}"
            self.stored[name] = made.object_body(one) if payload else made.message(one)

    async def redrive(self, **wishes: Any) -> Counts:
        """Go through what is stored once."""
        self.archive = MemoryArchive(self.stored)
        return await self.job(**wishes).run()

    def job(self, **wishes: Any) -> Redrive:
        """Make a redrive of the present archive."""
        return Redrive(
            self.parts,
            self.archive,
            read=lambda found: DocumentReader(SOURCE, FUNCTION_ARN).read(found.body),
            took=self._took,
            rereading=self,
            token_of=self._token_of,
            listener=self,
            wishes=Wishes(**{"before_ms": AT_MS, **wishes}),
            stop=self.stop,
        )

    def _took(self, records: int) -> None:
        self.counters.redriven += records

    @property
    def taken(self) -> list[int]:
        """Every offset the function was called with, in order."""
        return [offset for call in self.calls for offset in call]

    # The function: `pollers.ports.Target`

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Answer as the script says."""
        (batch,) = json.loads(invocation.event)["records"].values()
        offsets = [record["offset"] for record in batch]
        self.invocations.append(invocation)
        self.calls.append(offsets)
        self.called_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        return self.answer(offsets)

    # The source: `pollers.redriving.archive.Rereading`

    async def read(self, span: Span) -> Reread:
        """Return what is still there."""
        found = [one for one in self.in_source if span.first <= one.position <= span.last]
        whole = bool(found) and (found[0].position, found[-1].position) == (span.first, span.last)
        return Reread(found, whole)

    async def close(self) -> None:
        """Nothing to close."""

    # Whoever watches: `pollers.redriving.job.Listener`

    async def kept(self, document: str, records: int, error: str) -> None:
        """Remember."""
        self.told.append(("kept", document, str(records), error))

    async def waiting(self, error: str, retry_in_s: float) -> None:
        """Remember."""
        assert retry_in_s >= 0
        self.told.append(("waiting", error))

    async def progress(self, counts: Counts) -> None:
        """Check that counts agree."""
        settled = counts.delivered_documents + counts.failed_documents + counts.skipped_documents
        assert settled <= counts.documents

    async def _token_of(self, key: ShardKey) -> int:
        assert key.mapping == MAPPING
        return self.token
