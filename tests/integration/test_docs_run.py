"""Tutorial and how-to guides do what they say: followed in a shell, on embedded servers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.aws_cli import aws_program
from tests.support.aws_servers import aws_client
from tests.support.doc_reader import Reader, ReaderError
from tests.support.moto_server import MotoServer
from tests.support.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ALONE = ["tutorial.md", "howto/dead-letters.md", "howto/exactly-once.md", "howto/ordering.md"]
PREPARED = ["howto/from-kcl.md", "howto/from-lambda.md", "howto/from-localstack.md", "howto/kubernetes.md"]
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
LOCALSTACK = 4566
LEFT = {"tutorial.md": 1, "howto/kubernetes.md": 2}
"""How many blocks are marked as not run; everything else is."""


class Account:
    """An AWS account of its own, as a reader has one: in moto, with what a guide takes for granted."""

    def __init__(self, server: MotoServer, region: str) -> None:
        self._url = server.endpoint_url
        self._region = region

    @property
    def environment(self) -> dict[str, str]:
        """What has every SDK and the AWS CLI find it."""
        return {**KEYS, "AWS_ENDPOINT_URL": self._url}

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        return aws_client(service, self._url, region=self._region)


@pytest.fixture
def moto() -> Iterator[MotoServer]:
    """Run a server that nobody else uses: guides list all that is there."""
    with MotoServer() as server:
        yield server


def follow(page: str, folder: Path, environment: Mapping[str, str], ports: Mapping[int, int] | None = None) -> None:
    """Follow a page, and see that it left out no more than it may."""
    text = (DOCS / page).read_text()
    if re.search(r"^\$ (.*\()?aws ", text, re.MULTILINE):
        aws_program()
    with Reader(folder, text, environment, ports=ports) as reader:
        reader.follow()
    assert len([left for left in reader.left if not left.reason.startswith("no ")]) == LEFT.get(page, 0)


def test_every_guide_is_followed() -> None:
    """A new one has a test here."""
    assert {f"howto/{path.name}" for path in DOCS.glob("howto/*")} | {"tutorial.md"} == {*ALONE, *PREPARED}


@pytest.mark.parametrize("page", ALONE)
def test_a_page_that_brings_all_it_needs(page: str, open_folder: Path) -> None:
    """From nothing to what it promises, with the servers that nodes embed."""
    follow(page, open_folder, {})


def test_the_guide_from_lambda(moto: MotoServer, open_folder: Path) -> None:
    """Mappings of an account come over, and what arrived while nobody read is delivered here."""
    account = Account(moto, "eu-central-1")
    role = account.client("iam").create_role(RoleName="any", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    lambdas, kinesis, sqs = account.client("lambda"), account.client("kinesis"), account.client("sqs")
    code = {"ZipFile": b"not looked at"}
    lambdas.create_function(FunctionName="shop", Role=role, Runtime="python3.11", Handler="app.handler", Code=code)
    kinesis.create_stream(StreamName="clicks", ShardCount=1)
    queue = sqs.create_queue(QueueName="mails")["QueueUrl"]
    for source, more in (("kinesis:eu-central-1:123456789012:stream/clicks", {"StartingPosition": "LATEST"}),
                         ("sqs:eu-central-1:123456789012:mails", {})):  # fmt: skip
        lambdas.create_event_source_mapping(EventSourceArn=f"arn:aws:{source}", FunctionName="shop", **more)
    sqs.send_message(QueueUrl=queue, MessageBody="ann")
    for number in range(3):
        kinesis.put_record(StreamName="clicks", PartitionKey="ann", Data=str(number).encode())
    follow("howto/from-lambda.md", open_folder, account.environment)


def test_the_guide_from_the_kcl(moto: MotoServer, open_folder: Path) -> None:
    """Positions in a lease table as the KCL writes it are taken over to the record."""
    account = Account(moto, "us-east-1")
    kinesis, dynamodb = account.client("kinesis"), account.client("dynamodb")
    kinesis.create_stream(StreamName="clicks", ShardCount=2)
    for hash_key, name in (("0", "ann"), (str(2**127), "bob")):  # the first key of each shard
        for number in (1, 2, 3):
            kinesis.put_record(
                StreamName="clicks", PartitionKey=name, ExplicitHashKey=hash_key, Data=f"{name}-{number}".encode()
            )
    dynamodb.create_table(
        TableName="clicks-consumer",
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    sequence = _sequence_numbers(kinesis)
    for shard, done in (("shardId-000000000000", 2), ("shardId-000000000001", 1)):
        lease = {
            "leaseKey": {"S": shard},
            "checkpoint": {"S": sequence[shard][done - 1]},
            "checkpointSubSequenceNumber": {"N": "0"},
            "leaseCounter": {"N": "42"},
            "leaseOwner": {"S": "worker-1"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
        }
        dynamodb.put_item(TableName="clicks-consumer", Item=lease)
    follow("howto/from-kcl.md", open_folder, account.environment)


def _sequence_numbers(kinesis: Any) -> dict[str, list[str]]:
    found = {}
    for shard in ("shardId-000000000000", "shardId-000000000001"):
        at = kinesis.get_shard_iterator(StreamName="clicks", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        records = kinesis.get_records(ShardIterator=at["ShardIterator"])["Records"]
        found[shard] = [record["SequenceNumber"] for record in records]
    return found


def test_the_guide_to_kubernetes(open_folder: Path) -> None:
    """As far as it goes without a cluster: the configuration holds, and Kustomize makes the overlay's manifests."""
    page = "howto/kubernetes.md"
    with Reader(open_folder, (DOCS / page).read_text(), {}) as reader:
        shutil.copytree(ROOT / "deploy", reader.work / "deploy")
        reader.follow()
    assert len([left for left in reader.left if not left.reason.startswith("no ")]) == LEFT[page]


def test_the_guide_from_localstack(open_folder: Path) -> None:
    """Scripts for an emulator go on, with the node in the place of its Lambda."""
    with MotoServer(account_id="000000000000") as server:
        follow("howto/from-localstack.md", open_folder, {}, {LOCALSTACK: server.port})


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("```console\n$ echo 1\n2\n```\n", "where the page has\n2"),
        ("```console\n$ false\n```\n", "ended with 1, not 0"),
        ("```console\n$ true # status 2\n```\n", "ended with 0, not 2"),
        ("Write `a.py`:\n\n```python\nprint(1 / 0)\n```\n\n```console\n$ python a.py\n```\n", "ZeroDivisionError"),
        ("```console\n$ exit\n$ true\n```\n", "did not end"),
    ],
)
def test_a_page_that_is_wrong_is_found(page: str, told: str, tmp_path: Path) -> None:
    """Another output, another status, or a command that does not come back."""
    with Reader(tmp_path, page, {}) as reader, pytest.raises(ReaderError) as caught:
        reader.follow()
    assert told in str(caught.value)


def test_nothing_of_a_page_is_left_behind(tmp_path: Path) -> None:
    """What it started and did not end is ended; variables and the folder outlive a command."""
    page = "```console\n$ sleep 1000 &\n$ export A=$! && mkdir b && cd b\n$ echo $A > ../pid\n```\n"
    with Reader(tmp_path, page, {}) as reader:
        reader.follow()
        pid = int((reader.work / "pid").read_text())
        assert psutil.Process(pid).cmdline() == ["sleep", "1000"]
    assert not psutil.pid_exists(pid)


async def test_every_metric_that_a_node_tells_is_in_the_reference(tmp_path: Path) -> None:
    """Whatever it is registered by."""
    page = (DOCS / "reference/metrics.md").read_text()
    async with NodeProcess(tmp_path, {"control_plane": {"create_functions": True}}) as node:
        await node.start()
        _, text = await node.get("/metrics")
    told = set(re.findall(r"^# TYPE (esm_\w+)", text, re.MULTILINE))
    assert len(told) > 20
    assert {name for name in told if f"| `{name}` |" not in page} == set()
