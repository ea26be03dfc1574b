"""AWS's own client of the Lambda API."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from tests.support.aws_servers import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def lambda_client(url: str, *, secret: str = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]) -> Any:
    """Return boto3's client, unmodified, for a node."""
    return boto3.client(
        "lambda",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )


@asynccontextmanager
async def lambda_calls(url: str, *, secret: str = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]) -> AsyncIterator[Any]:
    """Give the client to a coroutine: made in a thread, as that reads files for a while, and closed at the end."""
    client = await asyncio.to_thread(lambda_client, url, secret=secret)
    try:
        yield client
    finally:
        client.close()
