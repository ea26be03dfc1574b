"""AWS services for tests, as fixtures: SQS, Kinesis, SNS and S3 servers; one of each per session, when first asked for.

Without Java, Maven or Node.js a test that wants one skips with the reason, and fails where CI=true. They are shared:
use queues, streams, topics and buckets with names of your own (`unique_name`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.elasticmq import ElasticMQ
from tests.support.kinesis_local import KinesisLocal
from tests.support.missing import skip_or_fail
from tests.support.moto_server import MotoServer
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def elasticmq() -> Iterator[ElasticMQ]:
    """Start an SQS server."""
    server = ElasticMQ()
    try:
        server.start()
    except ServerUnavailableError as exc:
        skip_or_fail(exc)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def kinesis_local() -> Iterator[KinesisLocal]:
    """Start a Kinesis server."""
    server = KinesisLocal()
    try:
        server.start()
    except ServerUnavailableError as exc:
        skip_or_fail(exc)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    """Start a server for SNS, S3 and SQS."""
    with MotoServer() as server:
        yield server
