"""The SQS and Kinesis servers that tests and `make services` start: that they serve AWS's own client."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import psutil

from tests.support.aws_servers import aws_client
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from tests.support.elasticmq import ElasticMQ
    from tests.support.kinesis_local import KinesisLocal


def loopback_only(pid: int) -> bool:
    """Whether a process listens, and on this machine's own address only."""
    listening = [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return bool(listening) and all("127.0.0.1" in c.laddr.ip for c in listening)


def test_a_message_goes_through_a_fifo_queue(elasticmq: ElasticMQ) -> None:
    """A FIFO queue takes a message, hands it out once with its group, and forgets it when deleted."""
    sqs = aws_client("sqs", elasticmq.endpoint_url)
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "30"}
    url = sqs.create_queue(QueueName=f"{unique_name('queue')}.fifo", Attributes=attributes)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="hello", MessageGroupId="g")
    [message] = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"], WaitTimeSeconds=5)["Messages"]
    assert (message["Body"], message["Attributes"]["MessageGroupId"]) == ("hello", "g")
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"].startswith(
        "arn:aws:sqs:us-east-1:000000000000:queue-"
    )
    assert loopback_only(elasticmq.pid)


def test_a_record_goes_through_a_stream_that_splits(kinesis_local: KinesisLocal) -> None:
    """A stream takes a record, gives it back, and splits its shard into two children."""
    kinesis = aws_client("kinesis", kinesis_local.endpoint_url)
    name = unique_name("stream")
    kinesis.create_stream(StreamName=name, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    kinesis.put_record(StreamName=name, Data=b"hello", PartitionKey="k")
    [shard] = kinesis.list_shards(StreamName=name)["Shards"]
    place = {"StreamName": name, "ShardId": shard["ShardId"]}
    iterator = kinesis.get_shard_iterator(**place, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    [record] = kinesis.get_records(ShardIterator=iterator)["Records"]
    assert (record["Data"], record["PartitionKey"]) == (b"hello", "k")
    kinesis.split_shard(StreamName=name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(2**127))
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    parents = [one.get("ParentShardId") for one in kinesis.list_shards(StreamName=name)["Shards"]]
    assert parents == [None, shard["ShardId"], shard["ShardId"]]
    assert loopback_only(kinesis_local.pid)


def test_a_killed_server_comes_back_at_its_address(elasticmq: ElasticMQ) -> None:
    """After a kill nobody listens; after a start the same address serves again."""
    url, port = elasticmq.endpoint_url, int(elasticmq.endpoint_url.rpartition(":")[2])
    elasticmq.kill()
    try:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    finally:
        elasticmq.start()
    assert elasticmq.endpoint_url == url
    assert aws_client("sqs", url).list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200
