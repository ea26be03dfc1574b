"""ESMD_TEST_AWS=1: what runs against servers of this machine runs in AWS too, and leaves nothing there.

AWS cannot be reached from everywhere. Here a server stands in its place, where the SDK finds it by AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.aws_servers import AWS, CREDENTIALS, VARIABLE, AwsServer, Lab, aws_client, real_aws, with_aws
from tests.support.kinesis_streams import Stream
from tests.support.node_process import ROOT
from tests.support.sqs_servers import RealQueue

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.moto_server import MotoServer

ASKED = [
    "tests/integration/test_kinesis_source.py::test_records_are_read_from_the_beginning_after_a_checkpoint_and_not_at_all",
    "tests/integration/test_kinesis_source.py::test_a_stream_that_is_not_there_is_a_refusal",
    "tests/integration/test_sqs.py::test_partial_failures_and_redrive",
    "tests/conformance/test_queue.py::test_order_is_kept_when_messages_are_given_back",
]


class Contents:
    """What there is on a server."""

    def __init__(self, server: AwsServer) -> None:
        self._kinesis, self._sqs = (aws_client(service, server.endpoint_url) for service in ("kinesis", "sqs"))

    def names(self) -> set[str]:
        """Return the streams and queues."""
        streams: list[str] = self._kinesis.list_streams()["StreamNames"]
        queues: list[str] = self._sqs.list_queues().get("QueueUrls", [])
        return {*streams, *(url.rpartition("/")[2] for url in queues)}


async def test_the_tests_run_where_the_sdk_goes_by_itself_and_clean_up(moto_server: MotoServer, tmp_path: Path) -> None:
    """With the variable and credentials the AWS cases run, pass, and delete their streams and queues."""
    contents = Contents(AwsServer(moto_server.endpoint_url))
    before = contents.names()
    log = tmp_path / "log"
    with log.open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", AWS),
            *ASKED,
            cwd=ROOT,
            env={**os.environ, **CREDENTIALS, VARIABLE: "1", "AWS_ENDPOINT_URL": moto_server.endpoint_url},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=words,
            stderr=words,
        )
        made: set[str] = set()
        try:
            while process.returncode is None:
                made |= await asyncio.to_thread(contents.names) - before
                await asyncio.sleep(0.02)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    said = log.read_text()
    assert process.returncode == 0, said
    assert f"{len(ASKED)} passed" in said
    assert "skipped" not in said
    assert {name.rpartition("-")[0] for name in made} == {"esmd-test-stream", "esmd-test-queue"}
    assert contents.names() == before


def test_what_a_failing_test_has_made_is_deleted(moto_server: MotoServer) -> None:
    """Also when something of it cannot be deleted."""
    server = AwsServer(moto_server.endpoint_url)
    contents = Contents(server)
    before = contents.names()

    def fail() -> None:
        with Lab(server, Stream) as streams, Lab(server, RealQueue) as queues:
            made = {streams.new().name, queues.new().name}
            gone = queues.new()
            assert contents.names() == before | made | {gone.name}
            gone.delete()
            raise LookupError("planted")

    with pytest.raises(Exception, match="NonExistentQueue") as caught:
        fail()
    assert isinstance(caught.value.__context__, LookupError)
    assert contents.names() == before


def test_aws_is_left_alone_unless_it_is_asked_for() -> None:
    """Nothing is collected for it without the variable."""
    assert with_aws("moto", environ={}) == ["moto"]
    assert with_aws("moto", environ={"CI": "true", VARIABLE: "0"}) == ["moto"]
    [moto, asked] = with_aws("moto", environ={VARIABLE: "1"})
    assert (moto, asked.values) == ("moto", (AWS,))


def test_without_credentials_the_cases_for_aws_are_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reason says what is missing; continuous integration does not fail for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception, match="no Region"):
        real_aws()
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with pytest.raises(pytest.skip.Exception, match="no credentials"):
        real_aws()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert real_aws().section() == {"region": "eu-central-1"}
