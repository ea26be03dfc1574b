"""aiokafka's consumer as the Kafka source uses it, and every place where we lean on its insides.

`PartitionConsumer` adds to the public consumer what manual assignment of many partitions needs: moving the assignment
and the positions in one step, taking fetched records of some partitions while the others keep theirs (the public
`pause` throws away what was fetched), waking the one reader loop, and a fetcher that keeps sessions with its brokers
(`kafka_fetcher`). Seen in aiokafka 0.14, and relied on:

- The fetcher holds at most one fetched response part per partition and asks for more only once that is taken; how much
  of all together is for `kafka_fetcher` to say.
- A response for an assignment that was replaced, or for a position that was moved, is thrown away.
- `assign([])` would ask for the metadata of every topic of the cluster: keep something assigned, and pause it.
- Replacing the assignment while the group's coordinator is being looked up can end aiokafka's coordination task, and a
  fetcher task can end unseen. Both show in `take`; then a new consumer is made.
- `bootstrap` logs why it failed and forgets it; `probe` goes first and keeps the reason.
- `stop` cancels fetches under way and awaits them bare: whoever stops gets their `CancelledError`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from pollers.sources.kafka_fetcher import SessionFetcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from pollers.sources.kafka_security import KafkaSecurity

__all__ = ["PartitionConsumer", "Seen", "TopicPartition", "limit_client_logging", "probe"]

_PARTITION_FETCH_BYTES = 1024 * 1024  # of one partition in an answer, so that others come in too
_STOP_S = 2.0
_CLOSE_S = 1.0


class Seen(NamedTuple):
    """What the last answer of the brokers said about a partition."""

    position: int | None  # the next offset to be taken
    highwater: int | None
    at_ms: int | None  # wall clock of that answer


class PartitionConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """A consumer of assigned partitions of one topic that never commits by itself."""

    _fetcher: SessionFetcher  # once started

    def __init__(
        self,
        topic: str,
        *,
        bootstrap_servers: Sequence[str],
        group_id: str,
        security: KafkaSecurity,
        fetch_max_wait_ms: int,
        fetch_max_bytes: int,
        hold_max_bytes: int,
        request_timeout_s: float,
    ) -> None:
        super().__init__(
            bootstrap_servers=list(bootstrap_servers),
            client_id="esmd",
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset="none",  # whether a lost place is a loss is for us to say
            isolation_level="read_committed",  # records of aborted transactions were never sent
            fetch_max_wait_ms=fetch_max_wait_ms,
            fetch_max_bytes=fetch_max_bytes,
            max_partition_fetch_bytes=_PARTITION_FETCH_BYTES,
            request_timeout_ms=int(request_timeout_s * 1000),
            retry_backoff_ms=200,
            metadata_max_age_ms=60_000,
            **security.options(),
        )
        self._topic = topic
        self._hold_max_bytes = hold_max_bytes

    async def start(self) -> None:
        """Connect, knowing from the start that one topic's metadata is all we want, and fetch in sessions."""
        self._client.set_topics([self._topic])
        await super().start()
        await self._fetcher.close()  # nothing is assigned yet, so it has done nothing
        self._fetcher = SessionFetcher(
            self._topic,
            self._client,
            self._subscription,
            hold_max_bytes=self._hold_max_bytes,
            fetch_min_bytes=self._fetch_min_bytes,
            fetch_max_bytes=self._fetch_max_bytes,
            fetch_max_wait_ms=self._fetch_max_wait_ms,
            max_partition_fetch_bytes=self._max_partition_fetch_bytes,
            check_crcs=self._check_crcs,
            fetcher_timeout=self._consumer_timeout,
            retry_backoff_ms=self._retry_backoff_ms,
            auto_offset_reset=self._auto_offset_reset,
            isolation_level=self._isolation_level,
        )

    async def partitions(self) -> set[int]:
        """Ask the brokers which partitions the topic has now."""
        if not await self._client.force_metadata_update():
            raise KafkaConnectionError("no broker answers a request for metadata")
        cluster = self._client.cluster
        if self._topic in cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(self._topic)
        found: set[int] | None = cluster.partitions_for_topic(self._topic)
        if not found:
            raise UnknownTopicOrPartitionError(self._topic)
        return found

    async def noted(self, partition: TopicPartition) -> tuple[int, str] | None:
        """Return the offset committed for a partition with the text that was committed with it; None without any."""
        found = (await self._coordinator.fetch_committed_offsets([partition])).get(partition)  # the public one: no text
        return None if found is None or found.offset < 0 else (int(found.offset), str(found.metadata or ""))

    def leader(self, partition: TopicPartition) -> int | None:
        """Return the leader's node id as of the last metadata; None without a leader."""
        node: int | None = self._client.cluster.leader_for_partition(partition)
        return None if node == -1 else node

    def move(self, places: Mapping[TopicPartition, int]) -> None:
        """Replace the assignment and every position in one step.

        There must be no await in here: between `assign` and `seek` the fetcher would look for committed positions.
        """
        self.assign(list(places))
        for partition, offset in places.items():
            self.seek(partition, offset)

    def longest_wait(self, wait_ms: int) -> None:
        """Set how long the brokers may hold back the next empty answers."""
        self._fetcher._fetch_max_wait_ms = wait_ms  # noqa: SLF001  # no public way

    async def take(self, wanted: Collection[TopicPartition], max_records: int) -> dict[TopicPartition, list[Any]]:
        """Take fetched records of the partitions wanted, at once. Needs an assignment and a non-empty `wanted`."""
        if self._fetcher.error_future.done():
            raise KafkaError("the fetcher has ended")
        self._coordinator.check_errors()
        taken: dict[TopicPartition, list[Any]] = await self._fetcher.fetched_records(wanted, 0, max_records)
        return taken

    def arrival(self) -> asyncio.Future[None]:
        """Return a future that is done with the next arrival of records. The caller may set its result to wake."""
        waiter: asyncio.Future[None] = self._fetcher._create_fetch_waiter()  # noqa: SLF001  # no public way
        return waiter

    def seen(self, partition: TopicPartition) -> Seen | None:
        """Return what is known about a partition; None when it is not assigned."""
        subscription = self._subscription.subscription
        state = subscription.assignment.state_value(partition) if subscription is not None else None
        if state is None:
            return None
        position = state.position if state.has_valid_position else None
        answers = [at_ms for at_ms in (state.timestamp, self._fetcher.heard_ms(partition)) if at_ms is not None]
        return Seen(position, state.highwater, max(answers, default=None))

    async def shut(self) -> None:
        """Stop, within a bounded time and whatever state the client is in. Never raises but when cancelled."""
        if await self._within(self.stop):
            return
        # It waited for a coordinator that does not answer, or met a fetch that it had cancelled itself.
        fetcher = self._fetcher
        if fetcher is not None:
            tasks = {fetcher._fetch_task, *fetcher._pending_tasks}  # noqa: SLF001  # no public way
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_S)
        await self._within(self._client.close)

    async def _within(self, closing: Callable[[], Awaitable[None]]) -> bool:
        """Close something within a bounded time; tell whether that went well."""
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            async with asyncio.timeout(_STOP_S):
                await closing()
        except asyncio.CancelledError:
            if task is not None and task.cancelling() > cancelled:
                raise  # we are meant; else it is what became of a fetch under way
            return False
        except Exception:  # noqa: BLE001  # whatever state the client is in, it is being given up
            return False
        return True


async def probe(bootstrap_servers: Sequence[str], security: KafkaSecurity, *, timeout_s: float) -> None:
    """Connect to one of the servers and log in. Raises the error of the last one when none can be used."""
    last: BaseException | None = None
    for host, port, _ in collect_hosts(list(bootstrap_servers)):
        connection = AIOKafkaConnection(
            host, port, client_id="esmd", request_timeout_ms=int(timeout_s * 1000), **security.options()
        )
        try:
            async with asyncio.timeout(timeout_s):
                await connection.connect()
        except KafkaError as exc:
            last = exc
            await _closed(connection)
        except (OSError, TimeoutError) as exc:
            last = exc  # never connected
        else:
            await _closed(connection)
            return
    raise last or KafkaConnectionError("no bootstrap servers")


async def _closed(connection: AIOKafkaConnection) -> None:
    """Close a connection that was made, and see it gone: over TLS that takes a word from the other side."""
    await asyncio.wait([connection.close()], timeout=_CLOSE_S)


def limit_client_logging() -> None:
    """Keep aiokafka's own log quiet, unless someone gave it a level: we report changes of state, not every attempt."""
    logger = logging.getLogger("aiokafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
