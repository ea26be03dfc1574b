"""Commands of the pages on operating esmd, typed as they stand, on a node that has what these pages take for granted.

Each must succeed; what is shown below them is an example of a state that nobody can type. Tutorial and how-to guides,
which bring all that they need, are followed as a whole (`test_docs_run`).
"""

from __future__ import annotations

import asyncio
import re
import time
import zipfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web
from aiokafka import AIOKafkaProducer

from tests.support.aws_servers import CREDENTIALS, aws_client
from tests.support.doc_reader import Reader
from tests.support.moto_server import MotoServer
from tests.support.node_process import NodeProcess, eventually, kafka_mapping
from tests.support.web_server import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.kafka_admin import KafkaAdmin

DOCS = Path(__file__).parents[2] / "docs"
ACCOUNT, REGION, AWAY_REGION = "000000000000", "us-east-1", "eu-central-1"
PLACE = 1200  # in orders-3, which a page moves to
_COMMAND = re.compile(r"^\$ (?:.*\\\n)*.*", re.MULTILINE)  # with its further lines, without what is shown below it
SHARDS = 5  # of the stream: a page names the last one


class World:
    """What there is when a page is opened."""

    def __init__(self, folder: Path, servers: str, function_url: str, aws_url: str) -> None:
        self.folder = folder
        self.aws_url = aws_url
        self.orders = {
            **kafka_mapping(servers, "orders", BatchSize=100),
            "DestinationConfig": {"OnFailure": {"Destination": f"arn:aws:sqs:{REGION}:{ACCOUNT}:failed"}},
            "extensions": {"park_failing_keys": True},
        }
        clicks = {
            "Name": "clicks",
            "EventSourceArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks",
            "FunctionName": "f",
            "StartingPosition": "TRIM_HORIZON",
        }
        function = {"url": function_url}
        self.document = {
            "aws": {"endpoint_url": aws_url, "region": REGION},
            "control_plane": {"create_functions": True},
            "functions": {
                **dict.fromkeys(("f", "local", "billing", "backfill"), function),
                "shop": {**function, "http": True},
            },
            "event_source_mappings": [self.orders, clicks],
        }

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a client of the embedded account."""
        return aws_client(service, self.aws_url, region=region)

    def type(self, page: str, node: NodeProcess, **replaced: str) -> None:
        """Type the commands of a page, in their order, in one shell."""
        blocks = re.findall(r"^```console\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
        commands = [line for block in blocks for line in _COMMAND.findall(block)]
        typed = "```console\n" + "\n".join(commands) + "\n```\n"
        for what, by in replaced.items():
            typed = typed.replace(what, by)
        folder = self.folder / Path(page).stem
        folder.mkdir()
        environment = {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": self.aws_url}
        port = int(node.address.rpartition(":")[2])
        with Reader(folder, typed, environment, ports={9001: port}) as reader:
            (reader.work / "event.json").write_text("{}")
            (reader.work / "esmd.yaml").write_text(yaml.safe_dump(self.document))
            changed = {**self.document, "event_source_mappings": [{**self.orders, "BatchSize": 50}]}
            (reader.work / "mappings.yaml").write_text(yaml.safe_dump(changed))
            with zipfile.ZipFile(reader.work / "thumbs.zip", "w") as archive:
                archive.writestr("app.py", "def handler(event, context):\n    return None\n")
            reader.follow()
            assert reader.left == []


@asynccontextmanager
async def world(broker: KafkaAdmin, folder: Path) -> AsyncIterator[tuple[World, NodeProcess]]:
    """Give a topic, a stream, queues, an account in another Region, and a node that has delivered what there is."""
    broker.create_topic("orders", 4)
    try:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=5) as producer:
            long_ago_ms = int((time.time() - 86_400) * 1000)  # so that the last two hours are a few records
            sent = [
                await producer.send("orders", b'{"id": %d}' % number, partition=3, timestamp_ms=long_ago_ms)
                for number in range(PLACE)
            ]
            sent += [await producer.send("orders", b'{"id": 0}', partition=3) for _ in range(5)]
            for one in sent:
                await one
        app = web.Application()
        app.router.add_post("/", answer)
        async with served(app) as function_url:
            with MotoServer(account_id=ACCOUNT) as moto:
                made = World(folder, broker.bootstrap_servers, function_url, moto.endpoint_url)
                made.client("kinesis").create_stream(StreamName="clicks", ShardCount=SHARDS)
                made.client("kinesis").put_record(StreamName="clicks", PartitionKey="ann", Data=b"1")
                for queue in ("orders", "failed"):
                    made.client("sqs").create_queue(QueueName=queue)
                there(made)
                async with NodeProcess(folder, made.document, env=dict(CREDENTIALS)) as node:
                    await node.start()

                    async def saved() -> bool:
                        mappings = (await node.status())["mappings"]
                        return bool(sum(mapping["ledger"]["delivered"] for mapping in mappings) == PLACE + 6)

                    await eventually(saved, "all is delivered")
                    yield made, node
    finally:
        broker.delete_topic("orders")


async def answer(request: web.Request) -> web.Response:
    """Be every function."""
    await request.read()
    return web.json_response({})


def there(made: World) -> None:
    """Make a mapping of AWS Lambda, to be read from there."""
    role = made.client("iam").create_role(RoleName="any", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    lambdas = made.client("lambda", AWAY_REGION)
    code = {"ZipFile": b"not looked at"}
    lambdas.create_function(FunctionName="shop", Role=role, Runtime="python3.11", Handler="app.handler", Code=code)
    made.client("sqs", AWAY_REGION).create_queue(QueueName="mails")
    lambdas.create_event_source_mapping(
        EventSourceArn=f"arn:aws:sqs:{AWAY_REGION}:{ACCOUNT}:mails", FunctionName="shop"
    )


async def test_what_the_pages_have_readers_type_works(real_kafka: KafkaAdmin, open_folder: Path) -> None:
    """Moving, replaying, importing and exporting; explaining and redriving; invoking; the control plane."""
    async with world(real_kafka, open_folder) as (made, node):
        for page in ("functions.md", "operations.md", "moving.md"):
            await asyncio.to_thread(made.type, page, node)
        query = "--query EventSourceMappings[0].UUID --output text"
        found = f"$(aws lambda list-event-source-mappings --function-name billing {query})"
        removing = "aws lambda delete-event-source-mapping --uuid 5f0c…"
        patiently = f"until {removing}; do sleep 0.1; done"
        await asyncio.to_thread(made.type, "control-plane.md", node, **{removing: patiently, "5f0c…": found})
        shown = (await node.status())["mappings"]
        assert {mapping["name"] for mapping in shown} >= {"orders", "clicks"}
        assert all(mapping["ledger"]["balanced"] for mapping in shown)
