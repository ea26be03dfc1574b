"""AWS services for tests, as fixtures: SQS, Kinesis, SNS and S3 servers; one of each per session, when first asked for.

Without Java, Maven or Node.js a test that wants one skips with the reason, and fails where CI=true. They are shared:
use queues, streams, topics and buckets with names of your own (`unique_name`).

`streams`, `closing_streams`, `queues` and `strict_queues` run a test on each server that can be trusted with what it
shows, and with ESMD_TEST_AWS=1 in AWS too. They delete what the test has made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.aws_servers import AWS, AwsServer, Lab, real_aws, with_aws
from tests.support.elasticmq import ElasticMQ
from tests.support.kinesis_local import KinesisLocal
from tests.support.kinesis_streams import Stream
from tests.support.missing import skip_or_fail
from tests.support.moto_server import MotoServer
from tests.support.servers import ServerUnavailableError
from tests.support.sqs_servers import RealQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kinesis_streams import Streams
    from tests.support.sqs_servers import Queues


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


@pytest.fixture(params=with_aws("kinesis-local", "moto"))
def streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    """Make streams."""
    with Lab(aws_server(request, monkeypatch), Stream) as lab:
        yield lab


@pytest.fixture(params=with_aws("kinesis-local"))
def closing_streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    """Make streams whose shards end when they are split or merged; in moto they do not."""
    with Lab(aws_server(request, monkeypatch), Stream) as lab:
        yield lab


@pytest.fixture(params=with_aws("elasticmq", "moto"))
def queues(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queues]:
    """Make queues."""
    with Lab(aws_server(request, monkeypatch), RealQueue) as lab:
        yield lab


@pytest.fixture(params=with_aws("elasticmq"))
def strict_queues(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queues]:
    """Make queues that keep the order of groups after a visibility timeout too; moto's do not."""
    with Lab(aws_server(request, monkeypatch), RealQueue) as lab:
        yield lab


def aws_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AwsServer:
    """Return the server of a parameter, and have credentials for it in the environment."""
    if request.param == AWS:
        return real_aws()
    fixture = {"kinesis-local": "kinesis_local", "moto": "moto_server", "elasticmq": "elasticmq"}[request.param]
    server = AwsServer(request.getfixturevalue(fixture).endpoint_url)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server
