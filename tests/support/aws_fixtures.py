"""Real SQS and Kinesis servers for tests, as fixtures; one of each per session, started when first asked for.

Without Java, Maven or Node.js a test that wants one skips with the reason, and fails where CI=true. They are shared:
use queues and streams with names of your own (`unique_name`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.elasticmq import ElasticMQ
from tests.support.kinesis_local import KinesisLocal
from tests.support.missing import skip_or_fail
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
