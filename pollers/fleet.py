"""Run one worker per lease this node holds: a pump for a shard of a source, a tracker for a mapping.

The leasing service decides which leases; this module starts, drains and stops the workers, and keeps one worker's
failure from touching the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from model.errors import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from leasing.held import HeldLease
    from model.ids import MappingId, ShardKey

log = structlog.get_logger(__name__)

_REFRESH_S = 5.0


class Worker(Protocol):
    """What works on one lease."""

    async def run(self) -> None:
        """Work until drained or done. Raises `LeaseLostError`; anything else is a fault of this worker."""

    def drain(self) -> None:
        """Ask `run` to finish what is under way, save, and return."""

    def refresh(self) -> None:
        """Have the report to operators brought up to date."""

    def mapping_changed(self, *, document: bool) -> None:
        """Learn that the mapping changed: its document, or only its state. May end `run` after a drain."""


@dataclass(slots=True)
class _Running:
    lease: HeldLease
    task: asyncio.Task[None] | None = None
    worker: Worker | None = None
    draining: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Fleet:
    """The workers of a node. `leasing.service.ShardHost`, as far as the leasing service is concerned.

    `make_worker` may take its time and fail; `ended` tells the leasing service that a worker ended by itself, so that
    the lease is given back and the shard taken up again with its present progress.
    """

    def __init__(
        self, make_worker: Callable[[HeldLease], Awaitable[Worker]], *, ended: Callable[[ShardKey], None]
    ) -> None:
        self._make_worker = make_worker
        self._ended = ended
        self._running: dict[ShardKey, _Running] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[ShardKey]:
        return iter(list(self._running))

    async def run(self) -> None:
        """Host workers until cancelled; then cancel them all."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while True:
                await asyncio.sleep(_REFRESH_S)
                for running in list(self._running.values()):
                    if running.worker is not None:
                        running.worker.refresh()

    def start(self, lease: HeldLease) -> None:
        """Begin work under a lease."""
        if self._tasks is None:
            raise RuntimeError("the fleet is not running")
        running = _Running(lease)
        before = self._running.get(lease.key)
        self._running[lease.key] = running
        running.task = self._tasks.create_task(self._work(running, after=before), name=f"work on {lease.key}")
        # Not in a `finally` of the work: a task that is cancelled before its first step never gets there.
        running.task.add_done_callback(lambda _task: self._gone(running))

    async def drain(self, key: ShardKey) -> None:
        """Let a worker finish and save; return when it is quiet. Cancelled: the worker is cancelled too."""
        running = self._running.get(key)
        if running is None or running.task is None:
            return
        running.draining = True
        if running.worker is None:
            running.task.cancel()  # nothing was read yet
        else:
            running.worker.drain()
        try:
            await running.ended.wait()
        finally:
            if not running.ended.is_set():
                running.task.cancel()

    def lost(self, key: ShardKey) -> None:
        """Stop at once: the lease is gone. Nothing more is invoked or written for it."""
        running = self._running.get(key)
        if running is not None and running.task is not None:
            running.draining = True
            running.task.cancel()

    def mapping_changed(self, mapping: MappingId, *, document: bool) -> None:
        """Tell a mapping's workers, so that those that depend on its document come back with the present one."""
        for key, running in list(self._running.items()):
            if key.mapping == mapping and running.worker is not None:
                running.worker.mapping_changed(document=document)

    async def _work(self, running: _Running, *, after: _Running | None) -> None:
        key = running.lease.key
        try:
            if after is not None:  # an earlier lease on the same shard was lost, and its worker is not gone yet
                await after.ended.wait()
            running.worker = await self._make_worker(running.lease)
            await running.worker.run()
        except LeaseLostError as exc:
            log.warning("worker.stopped", shard=str(key), token=running.lease.token, reason=str(exc))
        except Exception:
            # Supervision point: one shard's fault must not stop the others. The lease goes back, and whoever takes
            # it next, this node after a pause or another one, starts from the saved progress.
            log.exception("worker.failed", shard=str(key), token=running.lease.token)

    def _gone(self, running: _Running) -> None:
        key = running.lease.key
        if self._running.get(key) is running:
            del self._running[key]
        running.ended.set()
        if not running.draining:
            self._ended(key)
