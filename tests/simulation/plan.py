"""What one simulated world is like, and what befalls it: all of it follows from its seed. Pure.

Worlds are small and short, so that thousands of them can be run: what breaks in a large fleet breaks in one of three
nodes too, if the same things come together there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from model.ids import MappingId
from model.mapping_rules import parse_mapping
from tests.support.simulated_fan_out import CONSUMER
from tests.support.simulated_kinesis import ARN as STREAM_ARN

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM = MappingId("4f6e3f0e-0000-4000-8000-00000000000c")
QUEUE = MappingId("4f6e3f0e-0000-4000-8000-00000000000d")
TOPIC = MappingId("4f6e3f0e-0000-4000-8000-00000000000e")
QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:storm"
DEAD_ARN = "arn:aws:sqs:us-east-1:000000000000:dead"
FILTERED_KEY = "key-0"
LARGEST_BATCH = 10
_EPOCH_S = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that happens at a time. What exactly is drawn when it happens."""

    at: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlan:
    """How the function behaves when nothing befalls it."""

    quick_s: tuple[float, float] = (0.01, 0.2)
    slow: float = 0.02
    slow_s: tuple[float, float] = (0.5, 2.5)
    fails: float = 0.02
    throttles: float = 0.01
    unreachable: float = 0.005
    hangs: float = 0.002  # never answers
    answer_lost: float = 0.005  # carried out, and nobody is told
    twice: float = 0.005  # the network delivers the request twice
    poison: float = 0.0  # part of the records that it fails on until the world is healed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A world."""

    seed: int
    ttl_s: float
    drain_s: float
    nodes: int
    storm_s: float  # how long records are written and trouble comes
    store_epoch_s: float
    documents: tuple[dict[str, Any], ...]  # of the mappings
    shards: int
    keys: int
    pace_s: float  # between two bursts of records
    burst: int = 5  # ordering keys in one
    most_shards: int = 4
    retention_s: float = 600.0  # of a closed shard
    function: FunctionPlan
    troubles: tuple[Trouble, ...]
    function_timeout_s: float = 4.0
    visibility_s: int = 8
    queue_fails: float = 0.01
    topic_fails: float = 0.01
    answers_lost: float = 0.0  # of all answers of the store, the sources and the destination

    def document(self, mapping: MappingId) -> dict[str, Any] | None:
        """Return a mapping's document, if the world has it."""
        return next((found for found in self.documents if found["UUID"] == mapping), None)

    def __str__(self) -> str:
        told = ", ".join(f"{trouble.kind} at {trouble.at:.1f}" for trouble in self.troubles)
        documents = "; ".join(str({name: said for name, said in d.items() if name != "UUID"}) for d in self.documents)
        return (
            f"seed {self.seed}: {self.nodes} nodes, ttl {self.ttl_s:g} s, drain {self.drain_s:g} s, {self.shards} "
            f"shards, {self.keys} keys; {documents}; {self.function}; {told}"
        )


ANYWHERE = {
    "crash": 6,
    "pause": 6,
    "partition": 6,
    "slow": 3,
    "drain": 4,
    "rolling restart": 2,
    "join": 2,
    "store away": 3,
    "store fails over": 3,
    "store wiped": 2,
    "store read-only": 1,
    "store clock": 2,
    "wall clock": 1,
    "function": 3,
    "mapping": 2,
    "disabled": 1,
}
"""What may befall any world, and how likely it is beside the others."""

_STREAM = {"reshard": 10, "stream": 2, "seek": 2}
_QUEUE = {"queue": 3}
_TOPIC = {"topic": 3, "seek": 2}


def draw(seed: int) -> Plan:
    """Return the world of a seed."""
    random = Random(seed)
    sources = random.choices(("stream", "topic", "queue", "stream queue", "topic queue"), weights=(11, 4, 4, 2, 1))[0]
    error_rules, function = _function(random)
    documents = []
    kinds = dict(ANYWHERE)
    if "stream" in sources:
        documents.append(_stream(random, error_rules))
        kinds |= _STREAM
    if "topic" in sources:
        documents.append(_topic(random, error_rules))
        kinds |= _TOPIC
    if "queue" in sources:
        documents.append(_queue(random))
        kinds |= _QUEUE
    storm_s = random.uniform(30, 60)
    times = sorted(random.uniform(2, storm_s) for _ in range(random.randint(3, 10)))
    return Plan(
        seed=seed,
        ttl_s=random.choice((3.0, 5.0, 10.0)),
        drain_s=random.uniform(6, 12),
        nodes=random.randint(2, 4),
        storm_s=storm_s,
        # In half of the worlds tokens, which are microseconds, grow by a digit during the storm.
        store_epoch_s=random.choice((_EPOCH_S, 1000.0 - random.uniform(5, storm_s))),
        documents=tuple(documents),
        shards=random.randint(1, 3),
        keys=random.randint(3, 10),
        pace_s=random.uniform(0.3, 1.5),
        function=function,
        answers_lost=random.choice((0.0, 0.002, 0.01, 0.03)),
        troubles=tuple(Trouble(at, _choose(random, kinds)) for at in times),
    )


def reshard_storm(seed: int, *, fan_out: bool = False) -> Plan:
    """Return ten minutes of splits and merges every few seconds, with nodes that die or drain now and then."""
    random = Random(seed)
    storm_s = 600.0
    troubles = [Trouble(at, "reshard") for at in _times(random, 2, 6, until=storm_s)]
    comings = _times(random, 25, 60, until=storm_s - 60)
    troubles += [Trouble(at, "crash" if random.random() < 0.6 else "drain") for at in comings]
    document = {
        "UUID": STREAM,
        "Name": "clicks",
        "EventSourceArn": CONSUMER if fan_out else STREAM_ARN,
        "FunctionName": "f",
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": LARGEST_BATCH,
        "ParallelizationFactor": 2,
    }
    return Plan(
        seed=seed,
        ttl_s=10.0,
        drain_s=30.0,
        nodes=3,
        storm_s=storm_s,
        store_epoch_s=_EPOCH_S,
        documents=(document,),
        shards=3,
        keys=24,
        pace_s=0.5,
        burst=12,
        most_shards=7,
        retention_s=180.0,
        function=FunctionPlan(quick_s=(0.02, 0.4), slow_s=(0.5, 3.0)),
        troubles=tuple(troubles),
    )


def reshard_storm_by_fan_out(seed: int) -> Plan:
    """Return the same, with a stream consumer, and aggregates among the records."""
    return reshard_storm(seed, fan_out=True)


SCENARIOS: dict[str, Callable[[int], Plan]] = {
    "any": draw,
    "reshards": reshard_storm,
    "reshards by fan-out": reshard_storm_by_fan_out,
}


def _times(random: Random, least_s: float, most_s: float, *, until: float) -> list[float]:
    """Return times with gaps in between."""
    times = [random.uniform(least_s, most_s)]
    while times[-1] < until:
        times.append(times[-1] + random.uniform(least_s, most_s))
    return times[:-1]


def _choose(random: Random, weights: dict[str, int]) -> str:
    (chosen,) = random.choices(list(weights), weights=list(weights.values()))
    return chosen


def _function(random: Random) -> tuple[dict[str, Any], FunctionPlan]:
    """Return the error rules of a stream's mapping, and a function that makes use of them."""
    function = FunctionPlan()
    rules: dict[str, Any] = {}
    match random.randrange(5):
        case 0:
            function = replace(function, fails=random.choice((0.0, 0.05)))
        case 1 | 2:
            rules = {"MaximumRetryAttempts": random.randint(0, 4), "BisectBatchOnFunctionError": random.random() < 0.5}
            rules["DestinationConfig"] = {"OnFailure": {"Destination": DEAD_ARN}}
            function = replace(function, poison=0.03)
        case 3:
            rules = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
            function = replace(function, fails=0.05)
        case 4:
            rules = {"extensions": {"park_failing_keys": True, "park_after": random.randint(1, 3)}}
            function = replace(function, poison=0.02)
    return rules, function


def _stream(random: Random, error_rules: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "UUID": STREAM,
        "Name": "clicks",
        "EventSourceArn": CONSUMER if random.random() < 0.2 else STREAM_ARN,
        "FunctionName": "f",
        "StartingPosition": "LATEST" if random.random() < 0.15 else "TRIM_HORIZON",
        "BatchSize": random.choice((1, 3, 10)),
        "ParallelizationFactor": random.choice((1, 1, 2, 3)),
        **error_rules,
    }
    if random.random() < 0.2:
        pattern = f'{{"partitionKey":[{{"anything-but":["{FILTERED_KEY}"]}}]}}'
        document["FilterCriteria"] = {"Filters": [{"Pattern": pattern}]}
    parse_mapping(document)
    return document


def _topic(random: Random, error_rules: dict[str, Any]) -> dict[str, Any]:
    more = {"parallelization_factor": random.choice((1, 1, 2, 3)), **error_rules.get("extensions", {})}
    document: dict[str, Any] = {
        "UUID": TOPIC,
        "Name": "events",
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:9092"]}},
        "Topics": ["events"],
        "FunctionName": "f",
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": random.choice((1, 3, 10)),
        **error_rules,
        "extensions": more,
    }
    if random.random() < 0.2:
        document["FilterCriteria"] = {"Filters": [{"Pattern": f'{{"key":[{{"anything-but":["{FILTERED_KEY}"]}}]}}'}]}
    parse_mapping(document)
    return document


def _queue(random: Random) -> dict[str, Any]:
    fifo = random.random() < 0.6
    document: dict[str, Any] = {
        "UUID": QUEUE,
        "Name": "orders",
        "EventSourceArn": f"{QUEUE_ARN}.fifo" if fifo else QUEUE_ARN,
        "FunctionName": "f",
        "BatchSize": random.choice((1, 3, 10)),
        "ScalingConfig": {"MaximumConcurrency": random.randint(2, 4)},
    }
    if random.random() < 0.3:
        document["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
    parse_mapping(document)
    return document
