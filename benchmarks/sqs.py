"""SQS's rows: batches of ten, with and without a filter, beside the floor and a plain aioboto3 loop.

The backlog is served by `benchmarks.sqs_backlog`, so that readers are bound by their CPU; latencies are measured on
ElasticMQ. Everybody has twenty batches under way: two provisioned pollers' worth for a node, as many loops for the
others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.deliveries import Feed
from benchmarks.load_kafka import KEPT, KEPT_ONE_IN
from benchmarks.load_sqs import client
from benchmarks.sqs_backlog import ARN
from tests.support.elasticmq import ACCOUNT_ID, REGION
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench

_POLLERS = 2
_LOOPS = 10 * _POLLERS
_DISTINCT = 20_000  # messages of the backlog; many more than can be in flight at once
_WARM_CALLS = 300  # of each kind: a JVM is slow until it has compiled what is used


class Sqs:
    """`benchmarks.deliveries.DeliverySource`."""

    name = "sqs"
    floor_module = "benchmarks.floor_sqs"
    plain_module: str | None = "benchmarks.peers.aioboto3_sqs.loop"
    load_module = "benchmarks.load_sqs"
    mark = '"messageId":'
    pattern = f'{{"body": {{"type": ["{KEPT}"]}}}}'
    kept = KEPT
    kept_one_in = KEPT_ONE_IN
    per_s = 30_000
    batches: Sequence[int] = (10,)

    def __init__(self) -> None:
        self._endpoint = ""
        self._warm = False

    def backlog(self, bench: Bench, records: int) -> Feed:
        """Serve a queue, or return the one that is served already; it never ends."""
        if not self._endpoint:
            self._endpoint = bench.serve("benchmarks.sqs_backlog", ["--messages", str(_DISTINCT)])
        return _feed(self._endpoint, ARN, records)

    def empty(self, bench: Bench) -> Feed:
        """Make a queue."""
        if not self._warm and not bench.options.quick:
            _warm_up(client(bench.elasticmq, REGION))
            self._warm = True
        name = unique_name("bench")
        client(bench.elasticmq, REGION).create_queue(QueueName=name, Attributes={"VisibilityTimeout": "120"})
        return _feed(bench.elasticmq, f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{name}")

    def load(self, bench: Bench, feed: Feed, *, records: int, rate: float) -> Sequence[str]:  # noqa: ARG002  # one server
        """Send only what the filter keeps, so that each message is one to time."""
        return [*feed.floor, "--messages", str(records), "--rate", str(rate), "--kept-one-in", "1"]


def _warm_up(sqs: Any) -> None:
    """Have a server do what it will be asked for, on a queue that is not looked at again."""
    url = sqs.create_queue(QueueName=unique_name("warm"))["QueueUrl"]
    for _ in range(_WARM_CALLS):
        sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": "{}"} for n in range(10)])
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def _feed(endpoint: str, arn: str, records: int = 0) -> Feed:
    """Describe a queue on a server that takes any credentials."""
    return Feed(
        {"EventSourceArn": arn, "ProvisionedPollerConfig": {"MinimumPollers": _POLLERS, "MaximumPollers": _POLLERS}},
        ["--endpoint", endpoint, "--queue", arn, "--loops", str(_LOOPS)],
        records,
        {
            "AWS_ENDPOINT_URL_SQS": endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
    )
