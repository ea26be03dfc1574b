"""On-failure destinations in AWS through the real SDK: SQS on ElasticMQ, SNS and S3 on moto, trouble to order."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from model.errors import RefusedError, UnavailableError
from pollers.destinations import sqs
from pollers.destinations.aws_clients import AwsClients
from pollers.destinations.s3 import S3Destination
from pollers.destinations.sns import SnsDestination
from pollers.destinations.sqs import SqsDestination
from tests.integration.test_aws_servers import loopback_only
from tests.support.aws_servers import aws_client
from tests.support.failures import documents, failure
from tests.support.scripted_http import ScriptedServer, answer
from tests.support.servers import free_ports, unique_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.elasticmq import ElasticMQ
    from tests.support.moto_server import MotoServer

REGION = "us-east-1"


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the SDK credentials and no patience, and nothing of whoever runs the tests."""
    settings = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def clients_of() -> AsyncIterator[Callable[[str | None], AwsClients]]:
    """Make a node's clients for an endpoint; they are closed in the end."""
    made: list[AwsClients] = []

    def make(endpoint_url: str | None) -> AwsClients:
        made.append(AwsClients(region=REGION, endpoint_url=endpoint_url))
        return made[-1]

    yield make
    for clients in made:
        await clients.close()


def new_queue(endpoint_url: str, name: str = "", **attributes: str) -> tuple[str, str]:
    """Create a queue; returns its URL and its ARN."""
    url = aws_client("sqs", endpoint_url).create_queue(QueueName=name or unique_name("failed"), Attributes=attributes)
    got = aws_client("sqs", endpoint_url).get_queue_attributes(QueueUrl=url["QueueUrl"], AttributeNames=["QueueArn"])
    return url["QueueUrl"], got["Attributes"]["QueueArn"]


def receive(endpoint_url: str, url: str) -> list[str]:
    """Return the bodies of the messages in a queue."""
    got = aws_client("sqs", endpoint_url).receive_message(QueueUrl=url, WaitTimeSeconds=2, MaxNumberOfMessages=10)
    return [message["Body"] for message in got.get("Messages", [])]


async def test_a_queue_takes_the_document(elasticmq: ElasticMQ, clients_of: Callable[[str | None], AwsClients]) -> None:
    """The body is the document, and nothing else is asked of SQS than SendMessage."""
    url, arn = new_queue(elasticmq.endpoint_url)
    destination = SqsDestination(arn, documents(), clients_of(elasticmq.endpoint_url))
    given_up = failure(b"one", b"two")
    await destination.deliver(given_up)
    assert receive(elasticmq.endpoint_url, url) == [documents().message(given_up).decode()]


async def test_a_queue_takes_the_real_records_on_request(
    elasticmq: ElasticMQ, clients_of: Callable[[str | None], AwsClients]
) -> None:
    """With `payload` the event goes along; what no message can hold goes without."""
    url, arn = new_queue(elasticmq.endpoint_url)
    destination = SqsDestination(arn, documents(), clients_of(elasticmq.endpoint_url), payload=True)
    small, large = failure(b"one", b"two"), failure(b"x" * sqs.MAX_BYTES)
    for given_up in (small, large):
        await destination.deliver(given_up)
    with_payload, without = sorted(receive(elasticmq.endpoint_url, url), key=len, reverse=True)
    assert with_payload == documents().object_body(small).decode()
    assert without == documents().message(large).decode()


async def test_a_queue_with_a_smaller_limit_gets_the_document_without_payload(
    clients_of: Callable[[str | None], AwsClients],
) -> None:
    """MaximumMessageSize is the queue's own: a refusal for it must not hold the shard."""
    async with ScriptedServer() as server:
        too_long = {"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": "must be shorter than 1024 bytes"}
        server.then(answer(400, json.dumps(too_long).encode()), answer(200, b'{"MessageId": "1"}'))
        destination = SqsDestination(f"arn:aws:sqs:{REGION}:1:q", documents(), clients_of(server.url), payload=True)
        given_up = failure(b"x" * 2000)
        await destination.deliver(given_up)
        sent = [json.loads(request.body)["MessageBody"] for request in server.complete]
    assert sent == [documents().object_body(given_up).decode(), documents().message(given_up).decode()]


async def test_a_missing_queue_is_refused_until_it_is_created(
    elasticmq: ElasticMQ, clients_of: Callable[[str | None], AwsClients]
) -> None:
    """Nothing has to be restarted once someone has created it."""
    name = unique_name("later")
    destination = SqsDestination(
        f"arn:aws:sqs:{REGION}:000000000000:{name}", documents(), clients_of(elasticmq.endpoint_url)
    )
    with pytest.raises(RefusedError, match=f"SQS queue {name}: .*The specified queue does not exist"):
        await destination.deliver(failure(b"one"))
    url, _ = new_queue(elasticmq.endpoint_url, name)
    await destination.deliver(failure(b"one"))
    assert len(receive(elasticmq.endpoint_url, url)) == 1


async def test_a_server_that_is_down_is_unavailable_until_it_is_up(
    moto_server: MotoServer, clients_of: Callable[[str | None], AwsClients]
) -> None:
    """A killed service costs attempts, no records; the same clients reach it when it is back."""
    endpoint_url = moto_server.endpoint_url
    clients = clients_of(endpoint_url)
    _, queue = new_queue(endpoint_url)
    destination = SqsDestination(queue, documents(), clients)
    await destination.deliver(failure(b"one"))
    await asyncio.to_thread(moto_server.kill)
    try:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await destination.deliver(failure(b"one"))
    finally:
        await asyncio.to_thread(moto_server.start)
    url, _ = new_queue(endpoint_url, destination._queue.name)
    await destination.deliver(failure(b"one"))
    assert len(receive(endpoint_url, url)) == 1


async def test_a_topic_publishes_the_document(
    moto_server: MotoServer, clients_of: Callable[[str | None], AwsClients]
) -> None:
    """What subscribers of an SNS topic get as Message is the document, with the event on request."""
    endpoint_url = moto_server.endpoint_url
    assert loopback_only(moto_server.pid)
    sns = aws_client("sns", endpoint_url)
    topic = sns.create_topic(Name=unique_name("failed"))["TopicArn"]
    url, queue = new_queue(endpoint_url)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    given_up, clients = failure(b"one", b"two"), clients_of(endpoint_url)
    await SnsDestination(topic, documents(), clients).deliver(given_up)
    await SnsDestination(topic, documents(), clients, payload=True).deliver(given_up)
    messages = {json.loads(body)["Message"] for body in receive(endpoint_url, url)}
    assert messages == {documents().message(given_up).decode(), documents().object_body(given_up).decode()}


async def test_a_large_failure_fits_into_a_topics_message(
    moto_server: MotoServer, clients_of: Callable[[str | None], AwsClients]
) -> None:
    """SNS takes 256 KB: an event beyond that stays out of the message, and the message arrives."""
    endpoint_url = moto_server.endpoint_url
    sns = aws_client("sns", endpoint_url)
    topic = sns.create_topic(Name=unique_name("failed"))["TopicArn"]
    url, queue = new_queue(endpoint_url)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    given_up = failure(b"x" * 200_000)  # base64 makes it too large
    await SnsDestination(topic, documents(), clients_of(endpoint_url), payload=True).deliver(given_up)
    [body] = receive(endpoint_url, url)
    assert json.loads(body)["Message"] == documents().message(given_up).decode()


async def test_a_missing_topic_is_refused(
    moto_server: MotoServer, clients_of: Callable[[str | None], AwsClients]
) -> None:
    """The error names topic and reason."""
    arn = f"arn:aws:sns:{REGION}:123456789012:{unique_name('no')}"
    with pytest.raises(RefusedError, match=r"SNS topic no-.*NotFound"):
        await SnsDestination(arn, documents(), clients_of(moto_server.endpoint_url)).deliver(failure(b"one"))


async def test_a_bucket_takes_the_complete_event(
    moto_server: MotoServer, clients_of: Callable[[str | None], AwsClients]
) -> None:
    """One object under the specification's key, also for the largest event; delivered again it replaces itself."""
    s3, bucket = aws_client("s3", moto_server.endpoint_url), unique_name("failed")
    destination = S3Destination(f"arn:aws:s3:::{bucket}", documents(), clients_of(moto_server.endpoint_url))
    given_up = failure(b"x" * 4_700_000)
    with pytest.raises(RefusedError, match=f"S3 bucket {bucket}: NoSuchBucket"):
        await destination.deliver(given_up)
    s3.create_bucket(Bucket=bucket)
    for _ in range(2):
        await destination.deliver(given_up)
    [entry] = s3.list_objects_v2(Bucket=bucket)["Contents"]
    got = s3.get_object(Bucket=bucket, Key=entry["Key"])
    assert entry["Key"] == documents().object_key(given_up)
    assert got["Body"].read() == documents().object_body(given_up)
    assert got["ContentType"] == "application/json"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", RefusedError),
        (403, "InvalidClientTokenId", RefusedError),
        (400, "InvalidParameterValue", RefusedError),
        (400, "ThrottlingException", UnavailableError),
        (403, "RequestThrottled", UnavailableError),
        (403, "ExpiredToken", UnavailableError),
        (429, "Whatever", UnavailableError),
        (500, "InternalFailure", UnavailableError),
        (503, "ServiceUnavailable", UnavailableError),
    ],
)
async def test_refusals_and_troubles_are_told_apart(
    clients_of: Callable[[str | None], AwsClients], status: int, code: str, error: type[Exception]
) -> None:
    """What will not change by waiting is refused; the rest is unavailable; both name the queue and the code."""
    async with ScriptedServer(answer(status, json.dumps({"__type": code, "message": "why"}).encode())) as server:
        destination = SqsDestination(f"arn:aws:sqs:{REGION}:1:q", documents(), clients_of(server.url))
        with pytest.raises(error, match=f"^SQS queue q: {code}: why$"):
            await destination.deliver(failure(b"one"))


async def test_a_closed_port_is_unavailable(clients_of: Callable[[str | None], AwsClients]) -> None:
    """A refused connection is worth another try, and the error does not depend on the SDK's words."""
    [port] = free_ports(1)
    destination = SnsDestination(f"arn:aws:sns:{REGION}:1:t", documents(), clients_of(f"http://127.0.0.1:{port}"))
    with pytest.raises(UnavailableError, match=r"^SNS topic t cannot be reached"):
        await destination.deliver(failure(b"one"))


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
async def test_the_sdks_own_endpoint_variables_count(
    moto_server: MotoServer,
    clients_of: Callable[[str | None], AwsClients],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """Without `aws.endpoint_url` the SDK decides; a bucket is then part of the path, as emulators want it."""
    s3, bucket = aws_client("s3", moto_server.endpoint_url), unique_name("failed")
    s3.create_bucket(Bucket=bucket)
    monkeypatch.setenv(variable, moto_server.endpoint_url.replace("127.0.0.1", "localhost"))
    async with asyncio.timeout(20):
        await S3Destination(f"arn:aws:s3:::{bucket}", documents(), clients_of(None)).deliver(failure(b"one"))
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


async def test_credentials_that_come_later_are_found(
    clients_of: Callable[[str | None], AwsClients], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials a delivery is refused; once there are some, the node needs no restart."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    async with ScriptedServer(answer(200, b'{"MessageId": "1"}')) as server:
        destination = SqsDestination(f"arn:aws:sqs:{REGION}:1:q", documents(), clients_of(server.url))
        with pytest.raises(RefusedError, match="no AWS credentials found"):
            await destination.deliver(failure(b"one"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        await destination.deliver(failure(b"one"))
        [request] = server.complete
    assert "Credential=a/" in request.headers["authorization"]


async def test_a_profile_that_is_not_there_is_refused(
    clients_of: Callable[[str | None], AwsClients], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken SDK configuration is for someone to mend, and says what is wrong."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    destination: Any = SnsDestination(f"arn:aws:sns:{REGION}:1:t", documents(), clients_of("http://127.0.0.1:1"))
    with pytest.raises(RefusedError, match="nobody"):
        await destination.deliver(failure(b"one"))
