"""Make a stream and a queue, and write ten payments to each and to a topic; the provider is away once for number 6.

    python produce.py --kafka HOST:PORT [--name payments] [--visibility SECONDS]

Kinesis and SQS are where AWS's own variables say (AWS_ENDPOINT_URL_KINESIS, AWS_ENDPOINT_URL_SQS). The broker has to
create topics by itself, or have this one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import botocore.session
from aiokafka import AIOKafkaProducer

REGION = "us-east-1"
COUNT = 10
FLAKY = 6


def payments(source: str) -> list[bytes]:
    """Make the payments of a source."""
    return [json.dumps({"id": f"{source}-{n}", "failures": int(n == FLAKY)}).encode() for n in range(COUNT)]


async def to_topic(servers: str, topic: str) -> None:
    """Write to one partition, in order."""
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=100) as producer:
        for sent in [await producer.send(topic, payment, partition=0) for payment in payments("topic")]:
            await sent


def to_stream(name: str) -> None:
    """Create a stream of one shard and write to it."""
    kinesis = botocore.session.get_session().create_client("kinesis", region_name=REGION)
    kinesis.create_stream(StreamName=name, ShardCount=1)
    while kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
        time.sleep(0.1)
    records = [{"PartitionKey": "customer-1", "Data": payment} for payment in payments("stream")]
    kinesis.put_records(StreamName=name, Records=records)


def to_queue(name: str, visibility_s: int) -> None:
    """Create a queue and send to it."""
    sqs = botocore.session.get_session().create_client("sqs", region_name=REGION)
    url = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(visibility_s)})["QueueUrl"]
    entries = [{"Id": str(n), "MessageBody": payment.decode()} for n, payment in enumerate(payments("queue"))]
    sqs.send_message_batch(QueueUrl=url, Entries=entries)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write payments for the Powertools example.")
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT")
    parser.add_argument("--name", default="payments", help="of topic, stream and queue")
    parser.add_argument("--visibility", type=int, default=30, help="the queue's visibility timeout, in seconds")
    asked = parser.parse_args()
    to_stream(asked.name)
    to_queue(asked.name, asked.visibility)
    asyncio.run(to_topic(asked.kafka, asked.name))
