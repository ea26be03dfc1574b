r"""A member of a consumer group as careful aiokafka users write it, for the rows of fleets.

    python -m benchmarks.peers.aiokafka.worker --servers HOST:PORT --topic TOPIC --group NAME \
        --session-ms 10000 --url URL

Offsets are committed after the POST; a rebalance waits for the batch in flight; SIGTERM ends it after that batch, and
it leaves the group. Partitions are assigned by aiokafka's sticky assignor; a rebalance takes all of them from everybody
meanwhile, since aiokafka has no cooperative one. Prints `assigned N` whenever that changes.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import aiohttp
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError

from benchmarks.command_line import KAFKA, reader
from benchmarks.peers.aiokafka.event import event

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}


class Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Lets no partition go while a batch is under way."""

    def __init__(self, working: asyncio.Lock) -> None:
        self._working = working

    async def on_partitions_revoked(self, revoked: Any) -> None:  # noqa: ARG002  # all of them, always
        """Wait for the batch."""
        async with self._working:
            print("assigned 0", flush=True)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Tell."""
        print(f"assigned {len(assigned)}", flush=True)


async def run(arguments: argparse.Namespace) -> None:
    """Read, make, post, commit; until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    working = asyncio.Lock()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=arguments.servers,
        group_id=arguments.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=arguments.session_ms,
        heartbeat_interval_ms=arguments.session_ms // 3,
        partition_assignment_strategy=[StickyPartitionAssignor],
    )
    consumer.subscribe([arguments.topic], listener=Rebalance(working))
    await consumer.start()
    try:
        async with aiohttp.ClientSession(headers=_HEADERS, raise_for_status=True) as session:
            while not stop.is_set():
                # Outside the lock: in a rebalance it waits for the new assignment, which waits for the listener.
                found = await consumer.getmany(timeout_ms=50, max_records=arguments.batch)
                records = [record for several in found.values() for record in several]
                if not records:
                    continue
                async with working:
                    async with session.post(arguments.url, data=event(arguments.servers, records)) as response:
                        await response.read()
                    try:
                        await consumer.commit(
                            {partition: several[-1].offset + 1 for partition, several in found.items()}
                        )
                    except (CommitFailedError, IllegalStateError) as exc:
                        print(f"not committed: {exc!r}", flush=True)
    finally:
        await consumer.stop()


def main() -> None:
    """Run as a program."""
    parser = reader("Delivers a consumer group's share of a topic.", KAFKA)
    parser.add_argument("--group", required=True)
    parser.add_argument("--session-ms", type=int, required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
