"""`esmd import --from-aws`, against moto's Lambda and against a node's own, which gives pages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from config.load import load
from node import cli
from tests.support.aws_servers import aws_client
from tests.support.lambda_rig import lambda_rig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.moto_server import MotoServer

ROLE = '{"Version": "2012-10-17", "Statement": []}'


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the SDK find some."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


async def imported(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str, Any]:
    """Import; return exit status, output, errors, and the mappings of what was written."""
    capsys.readouterr()
    status = await asyncio.to_thread(cli.run, ["import", "--from-aws", *arguments])
    said = capsys.readouterr()
    path = folder / "imported.yaml"
    path.write_text(said.out)
    return status, said.out, said.err, load([path], environ={}).mappings if said.out else ()


async def test_all_pages_of_a_lambda_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 mappings, of which a page has 100; with their tags, and only those of one function where asked for."""
    async with lambda_rig() as rig:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", rig.url)
        client = await asyncio.to_thread(aws_client, "lambda", rig.url)

        def create(number: int) -> None:
            client.create_event_source_mapping(
                EventSourceArn=f"arn:aws:sqs:us-east-1:000000000000:q{number:03}",
                FunctionName="f" if number else "g",
                Tags={"number": str(number)},
            )

        def create_all() -> None:
            for number in range(120):
                create(number)

        await asyncio.to_thread(create_all)
        status, _, err, mappings = await imported(tmp_path, capsys)
        assert (status, len(mappings)) == (0, 120)
        assert "120 event source mappings in us-east-1" in err
        assert {one.tags["number"] for one in mappings} == {str(number) for number in range(120)}
        status, _, _, mappings = await imported(tmp_path, capsys, "--function", "g")
        assert (status, [one.name for one in mappings]) == (0, ["q000-g"])


async def test_what_moto_has_comes_over(
    moto_server: MotoServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made with AWS's own client in another implementation of Lambda."""

    def make() -> str:
        iam, sqs = aws_client("iam", moto_server.endpoint_url), aws_client("sqs", moto_server.endpoint_url)
        role = iam.create_role(RoleName="import-esmd", AssumeRolePolicyDocument=ROLE)["Role"]["Arn"]
        lambdas = aws_client("lambda", moto_server.endpoint_url)
        lambdas.create_function(
            FunctionName="imported", Role=role, Runtime="python3.11", Handler="a.b", Code={"ZipFile": b"x"}
        )
        url = sqs.create_queue(QueueName="imported-queue")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        lambdas.create_event_source_mapping(EventSourceArn=arn, FunctionName="imported", BatchSize=7, Enabled=False)
        return str(arn)

    arn = await asyncio.to_thread(make)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint_url)
    status, text, _, mappings = await imported(tmp_path, capsys, "--function", "imported")
    assert status == 0
    (mapping,) = mappings
    assert (mapping.source.arn, mapping.batch_size, mapping.enabled) == (arn, 7, False)
    assert "disable the mapping in AWS first" in text


async def test_without_an_answer_or_credentials_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 3 for what may pass, 1 for what someone must see to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:9")
    status, _, err, _ = await imported(tmp_path, capsys)
    assert (status, "AWS Lambda" in err) == (3, True)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    status, _, err, _ = await imported(tmp_path, capsys)
    assert (status, "credentials" in err) == (1, True)
