"""A Kinesis that answers to order: a scripted HTTP server with answers in Kinesis's form."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from pollers.sources.kinesis_api import KinesisApi
from tests.support.kinesis_streams import aws_json
from tests.support.scripted_http import ScriptedServer, answer, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.scripted_http import Behaviour, Exchange, Received

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"


def says(document: object, *, status: int = 200, **headers: str) -> Behaviour:
    """Answer with a document."""
    return answer(status, json.dumps(document).encode(), headers=headers)


def refuses(code: str, message: str = "", *, status: int = 400) -> Behaviour:
    """Answer with an error."""
    return says({"__type": code, "message": message}, status=status)


def row(number: int, *, key: str = "k", data: str = "SGVsbG8=", arrival: float = 1545084650.987) -> dict[str, Any]:
    """Make one record of GetRecords."""
    return {
        "SequenceNumber": str(10**55 + number),
        "Data": data,
        "PartitionKey": key,
        "ApproximateArrivalTimestamp": arrival,
    }


def page(*rows: dict[str, Any], then: str | None = "next", behind_ms: int = 0) -> Behaviour:
    """Answer GetRecords."""
    return says({"Records": list(rows), "NextShardIterator": then, "MillisBehindLatest": behind_ms})


def iterator(name: str) -> Behaviour:
    """Answer GetShardIterator."""
    return says({"ShardIterator": name})


def shard_row(number: int, *parents: int, closed: bool = False) -> dict[str, Any]:
    """Make one shard of ListShards."""
    named = [f"shardId-{parent:012}" for parent in parents] + [None, None]
    return {
        "ShardId": f"shardId-{number:012}",
        "ParentShardId": named[0],
        "AdjacentParentShardId": named[1],
        "SequenceNumberRange": {"StartingSequenceNumber": "1", "EndingSequenceNumber": "9" if closed else None},
    }


def asked(received: Received) -> tuple[str, dict[str, Any]]:
    """Return a request's operation and document."""
    return received.headers["x-amz-target"].rpartition(".")[2], json.loads(received.body)


def paging(rows: list[dict[str, Any]], *, size: int) -> Behaviour:
    """Answer ListShards page by page, as AWS does: a token stands for stream, filter and place."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        operation, request = asked(exchange.request)
        assert operation == "ListShards"
        token = request.get("NextToken")
        assert (token is None) == ("StreamARN" in request)
        first = int(token or 0)
        more = str(first + size) if first + size < len(rows) else None
        document = {"Shards": rows[first : first + size], "NextToken": more}
        await exchange.write(response(200, json.dumps(document).encode()))

    return behave


@contextlib.asynccontextmanager
async def scripted_api(default: Behaviour | None = None) -> AsyncIterator[tuple[KinesisApi, ScriptedServer]]:
    """Make calls of a scripted server."""
    async with ScriptedServer(default) as server, aws_json(server.url) as caller:
        yield KinesisApi(ARN, caller), server
