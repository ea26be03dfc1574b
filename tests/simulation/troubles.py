"""What may befall a simulated world: to nodes, the network, the store, the sources and the function.

Each trouble is a coroutine that ends when it is over; `World.heal` cuts short whatever would go on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leasing.term import default_margin_s
from model.mapping import MappingRecord, MappingState
from model.mapping_rules import canonical_document
from model.seek import Move, SeekWish
from model.shard import BEGINNING, PUT
from tests.simulation.plan import STREAM, TOPIC

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.simulation.node import SimulatedNode
    from tests.simulation.world import World
    from tests.support.wire import Wire


async def crash(world: World) -> None:
    """Kill a process; perhaps it comes back."""
    node = world.pick()
    if node is None:
        return
    world.tell(f"{node.name} is killed")
    await node.kill()
    await world.sleep(world.random.uniform(0, 2 * world.plan.ttl_s))
    world.start_node(node.machine)


async def pause(world: World) -> None:
    """Stop a process, or its machine, and let it go on as if nothing had been."""
    node = world.pick()
    if node is None:
        return
    for_s = world.random.choice((0.3, 1.0, 3.0)) * world.random.uniform(0.5, 1) * world.plan.ttl_s
    slept, timers_first = world.random.random() < 0.3, world.random.random() < 0.5
    world.tell(f"{node.name} {'sleeps' if slept else 'stops'} for {for_s:.1f} s")
    world.loop.stop_machine(node.machine)
    await world.sleep(for_s)
    world.loop.go_on(node.machine, slept=slept, timers_first=timers_first)
    world.tell(f"{node.name} goes on")


async def slow(world: World) -> None:
    """Give a machine little time to run, in turns."""
    node = world.pick()
    if node is None:
        return
    until = world.loop.now + world.random.uniform(5, 15)
    stops_s, runs_s = world.random.uniform(0.05, 0.6), world.random.uniform(0.005, 0.05)
    world.tell(f"{node.name} is slow: stops for {stops_s:.2f} s, runs for {runs_s:.3f} s")
    while world.loop.now < until and node.lives and not node.machine.stopped:
        world.loop.stop_machine(node.machine)
        await world.sleep(stops_s)
        world.loop.go_on(node.machine)
        if world.healing.is_set():
            return
        await world.sleep(runs_s)


async def partition(world: World) -> None:
    """Cut a node off the store, a source or the function, or slow its messages down."""
    node = world.pick()
    if node is None:
        return
    random = world.random
    wire: Wire = node.store
    what = "the store"
    if random.random() < 0.25 and node.ways:
        what, wire = random.choice(sorted(node.ways.items()))
    elif random.random() < 0.1:
        what, wire = random.choice((("the function", node.function), ("the destination", node.destination)))
    how = random.choice(("refusing", "mute", "held up", "slow"))
    for_s = random.choice((0.3, 1.0, 2.0)) * random.uniform(0.5, 1.2) * world.plan.ttl_s
    world.tell(f"{node.name}'s way to {what} is {how} for {for_s:.1f} s")
    _cut(node, wire, how, world)
    await world.sleep(for_s)
    if not node.killed:
        world.mend(node, wire)


def _cut(node: SimulatedNode, wire: Wire, how: str, world: World) -> None:
    match how:
        case "refusing":
            wire.refusing = True
        case "mute":
            wire.mute = True
        case "held up":
            wire.hold_up()
        case _:
            node.pace(wire, 0.01, world.random.uniform(0.1, 1.0) * world.plan.ttl_s / 3)


async def drain(world: World) -> None:
    """Stop a node in order and start it again."""
    node = world.pick()
    if node is None:
        return
    world.tell(f"{node.name} drains")
    await node.drain()
    world.tell(f"{node.name} has drained")
    await world.sleep(world.random.uniform(0, 3))
    world.start_node(node.machine)


async def rolling_restart(world: World) -> None:
    """Stop all nodes in order, one after the other, each as soon as the one before is back."""
    for node in [node for node in world.nodes if node.lives]:
        if node.lives and not node.machine.stopped:
            world.tell(f"{node.name} drains in its turn")
            await node.drain()
            world.start_node(node.machine)
        if world.healing.is_set():
            return
        await world.sleep(world.random.uniform(0.1, 2))


async def join(world: World) -> None:
    """Start one more node; it leaves after a while."""
    if sum(node.lives for node in world.nodes) >= 5:
        return
    node = world.start_node()
    world.tell(f"{node.name} joins")
    await world.sleep(world.random.uniform(5, 20))
    if node.lives and not node.machine.stopped:
        world.tell(f"{node.name} leaves")
        await node.drain()


async def store_away(world: World) -> None:
    """Let the store refuse, or hang."""
    for_s = world.random.choice((0.2, 1.0, 2.0)) * world.random.uniform(0.5, 1) * world.plan.ttl_s
    hangs = world.random.random() < 0.5
    world.tell(f"the store {'hangs' if hangs else 'refuses'} for {for_s:.1f} s")
    await _away(world, for_s, hangs=hangs)


async def _away(world: World, for_s: float, *, hangs: bool) -> None:
    door = world.redis.door
    if hangs:
        door.hanging = True
    else:
        door.refusing = True
    await world.sleep(for_s)
    door.open()


async def store_fails_over(world: World) -> None:
    """Lose the last writes: a replica takes over that had not got them."""
    backup = world.redis.backup()
    lost_s = world.random.uniform(0, 1)
    await world.sleep(lost_s)
    for_s = world.random.uniform(0.1, 4)
    world.tell(f"the store is away for {for_s:.1f} s, and loses its last {lost_s:.2f} s")
    await _away(world, for_s, hangs=world.random.random() < 0.5)
    world.redis.restore(backup)
    world.rolled_back = True


async def store_wiped(world: World) -> None:
    """Have the store forget everything."""
    for_s = world.random.choice((0.0, world.random.uniform(0, 3)))
    world.tell(f"the store is away for {for_s:.1f} s, and comes back empty")
    if for_s:
        await _away(world, for_s, hangs=False)
    world.redis.wipe()
    world.wiped = True


async def store_read_only(world: World) -> None:
    """Have the store refuse all writes: a replica, or out of memory."""
    for_s = world.random.uniform(0.5, 1.5 * world.plan.ttl_s)
    world.tell(f"the store takes no writes for {for_s:.1f} s")
    world.redis.read_only = True
    await world.sleep(for_s)
    world.redis.read_only = False


async def store_clock(world: World) -> None:
    """Step the store's clock: mostly by less than the margin covers."""
    margin_s = default_margin_s(world.plan.ttl_s)
    by_s = world.random.uniform(-0.7, 0.7) * margin_s
    if world.random.random() < 0.25:
        by_s = world.random.uniform(margin_s, 2 * world.plan.ttl_s)
    world.tell(f"the store's clock is stepped by {by_s:.2f} s")
    world.redis.ahead_s += by_s
    world.judge.clock_stepped(by_s)


async def wall_clock(world: World) -> None:
    """Step a machine's wall clock."""
    machine = world.random.choice(world.machines)
    machine.wall_ahead_s += world.random.uniform(-5, 5)
    world.tell(f"the wall clock of {machine.name} is {machine.wall_ahead_s:.1f} s ahead")


async def function(world: World) -> None:
    """Have the function do badly for a while."""
    troubles = world.random.choice(
        ({"fails": 0.5}, {"throttles": 0.8}, {"unreachable": 1.0}, {"hangs": 0.3}, {"answer_lost": 0.3}, {"slow": 0.7})
    )
    for_s = world.random.uniform(2, 10)
    world.tell(f"the function does badly for {for_s:.1f} s: {troubles}")
    world.function.suffer(**troubles)
    await world.sleep(for_s)
    world.function.recover()


async def mapping(world: World) -> None:
    """Change a mapping's document."""
    document = world.random.choice(world.documents)
    document["BatchSize"] = world.random.choice((1, 2, 5, 10))
    if await _put(world, document, MappingState.UPDATING):
        world.tell(f"the batch size of {document['Name']} becomes {document['BatchSize']}")


async def disabled(world: World) -> None:
    """Disable a mapping for a while."""
    document = world.random.choice(world.documents)
    document["Enabled"] = False
    for_s = world.random.uniform(0.5, 10)
    if await _put(world, document, MappingState.DISABLING):
        world.tell(f"{document['Name']} is disabled for {for_s:.1f} s")
        await world.sleep(for_s)
    document["Enabled"] = True
    await _put(world, document, MappingState.ENABLING)  # else `put_all` does it in the end


async def _put(world: World, document: dict[str, Any], state: MappingState) -> bool:
    """Put a document into the store, if it is there and knows the mapping, and the nodes' files."""
    if not world.redis.door.is_open or world.redis.read_only:
        return False
    record = MappingRecord(document["UUID"], document["Name"], canonical_document(document), 0, state)
    await world.redis.put_mapping(record)
    return True


async def put_all(world: World) -> None:
    """See, as an operator would, that the store has the documents: it may have lost what was put last."""
    for document in world.documents:
        await _put(world, document, MappingState.UPDATING)


async def reshard(world: World) -> None:
    """Split a shard, or merge two."""
    if world.stream is not None:
        world.tell("the stream is resharded")
        world.stream.stream.disturb(most=world.plan.most_shards)


async def stream(world: World) -> None:
    """Have the stream refuse and throttle a lot."""
    if world.stream is None:
        return
    troubled = world.stream.stream
    usual = troubled.trouble
    for_s = world.random.uniform(2, 8)
    world.tell(f"the stream does badly for {for_s:.1f} s")
    troubled.trouble = replace(usual, throttled=0.4, failed=0.3, unanswered=0.05, expired=0.1)
    await world.sleep(for_s)
    troubled.trouble = usual


async def queue(world: World) -> None:
    """Have the queue refuse and fail a lot."""
    if world.queue is None:
        return
    for_s = world.random.uniform(2, 8)
    world.tell(f"the queue does badly for {for_s:.1f} s")
    world.queue.sqs.fails = 0.4
    await world.sleep(for_s)
    world.queue.sqs.fails = world.queue.usual_fails


async def topic(world: World) -> None:
    """Have the brokers fail a lot."""
    if world.topic is None:
        return
    for_s = world.random.uniform(2, 8)
    world.tell(f"the brokers do badly for {for_s:.1f} s")
    world.topic.brokers.fails = 0.4
    await world.sleep(for_s)
    world.topic.brokers.fails = world.topic.usual_fails


async def seek(world: World) -> None:
    """Have a stream or topic read again from its beginning, as an operator would, who takes a while."""
    if world.stream is not None:
        mapping, origin, position = STREAM, BEGINNING, None
        stream = world.stream.stream
        shards = [shard.id for shard in stream.all.values() if shard.listed_at <= world.loop.now and stream.kept(shard)]
    elif world.topic is not None:
        mapping, origin, position = TOPIC, PUT, "0"
        brokers = world.topic.brokers
        shards = [f"{brokers.name}-{number}" for number in range(len(brokers.logs))]
    else:
        return
    moves = tuple(Move(shard, position, origin, "0") for shard in shards)
    await world.sleep(world.random.uniform(0, 5))
    if not world.redis.door.is_open or world.redis.read_only:
        return
    number = await world.redis.wish_seek(mapping, SeekWish(moves, "the world").encode())
    world.tell(f"{len(shards)} shards are to be read again, by wish {number}")


KINDS: dict[str, Callable[[World], Awaitable[None]]] = {
    "crash": crash,
    "pause": pause,
    "partition": partition,
    "slow": slow,
    "drain": drain,
    "rolling restart": rolling_restart,
    "join": join,
    "store away": store_away,
    "store fails over": store_fails_over,
    "store wiped": store_wiped,
    "store read-only": store_read_only,
    "store clock": store_clock,
    "wall clock": wall_clock,
    "function": function,
    "mapping": mapping,
    "disabled": disabled,
    "reshard": reshard,
    "stream": stream,
    "queue": queue,
    "topic": topic,
    "seek": seek,
}
