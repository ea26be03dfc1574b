"""Finding an AWS service: once, for all who ask at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from invocation.signing import AwsCredentials, AwsSigner, Endpoint

if TYPE_CHECKING:
    import pytest


async def test_the_service_of_a_region_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading botocore's description of a service takes a tenth of a second; sixteen pollers start together."""
    looked_for: list[str | None] = []

    def find(_service: str, region: str | None, _endpoint_url: str | None) -> Endpoint:
        looked_for.append(region)
        return Endpoint(f"http://{region}", region or "")

    monkeypatch.setattr("invocation.signing._find_endpoint", find)
    signer = AwsSigner("sqs", AwsCredentials(), region="us-east-1")
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(signer.endpoint(region)) for region in ["eu-west-1", None] * 8]
    assert {task.result().url for task in asking} == {"http://eu-west-1", "http://us-east-1"}
    assert sorted(map(str, looked_for)) == ["eu-west-1", "us-east-1"]
