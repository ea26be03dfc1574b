"""A node that asks who is calling, and AWS's own client with the node's access keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from node.embedded_redis import EmbeddedRedis
from tests.support.invoke_rig import invoke_rig
from tests.support.lambda_client import lambda_calls

if TYPE_CHECKING:
    from pathlib import Path


async def test_boto3_signs_and_is_let_in(tmp_path: Path) -> None:
    """With the keys of `auth.access_keys`: small and large bodies, changes logged under its name; others not."""
    auth = {"access_keys": {"test": "${env:SECRET}"}, "read_only_tokens": ["${env:READER}"]}
    env = {"SECRET": "test", "READER": "look"}
    with EmbeddedRedis(port=0) as redis:
        async with invoke_rig(tmp_path, redis.url, {}, env=env, auth=auth) as rig:
            for size in (1, 1_000_000):
                answer = await rig.invoke("local", {"size": size})
                assert (answer["StatusCode"], len(answer["Payload"])) == (200, size + 2)
            sent = await rig.invoke("local", "x" * 1_000_000)
            assert len(sent["Payload"]) > 1_000_000
            with pytest.raises(ClientError, match="does not exist"):
                await asyncio.to_thread(
                    rig.client.delete_event_source_mapping, UUID="00000000-0000-4000-8000-000000000000"
                )
            (change,) = rig.node.find("api.changed")
            assert (change["caller"], change["method"], change["status"]) == ("access key test", "DELETE", 404)
            async with lambda_calls(rig.url, secret="guess") as stranger:
                with pytest.raises(ClientError) as caught:
                    await asyncio.to_thread(stranger.list_event_source_mappings)
                assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
            for headers, status in (({}, 401), ({"Authorization": "Bearer look"}, 200)):
                assert (await rig.node.get("/metrics", headers))[0] == status
            assert "guess" not in rig.node.log_file.read_text()


async def test_whoever_asks_too_often_or_guesses_is_throttled_and_functions_are_called_all_the_same(
    tmp_path: Path,
) -> None:
    """One reading request at a time and one failed proof; the metric tells of what was refused."""
    auth = {"access_keys": {"test": "${env:SECRET}"}, "read_only_tokens": ["${env:READER}"], "failed_logins": 0.01}
    more: dict[str, Any] = {"auth": auth, "control_plane": {"rate_limits": {"reads": 0.01}}}
    with EmbeddedRedis(port=0) as redis:
        async with invoke_rig(tmp_path, redis.url, {}, env={"SECRET": "test", "READER": "look"}, **more) as rig:
            await asyncio.to_thread(rig.client.list_event_source_mappings)
            assert (await rig.node.get("/metrics", {"Authorization": "Bearer look"}))[0] == 200
            with pytest.raises(rig.client.exceptions.TooManyRequestsException) as caught:
                await asyncio.to_thread(rig.client.list_event_source_mappings)
            said = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
            assert 0 < int(said["retry-after"]) <= 100
            for number in range(2):
                async with lambda_calls(rig.url, secret=f"guess {number}") as stranger:
                    with pytest.raises(ClientError) as refused:
                        await asyncio.to_thread(stranger.list_functions)
                # The key is the one that got in from here before: its proofs are looked at, others' are not.
                assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"
            for _ in range(3):
                assert (await rig.invoke("local", {"size": 1}))["StatusCode"] == 200
            assert (await rig.node.get("/esmd/v1/status", {"Authorization": "Bearer wrong"}))[0] == 429
            _, text = await rig.node.get("/metrics", {"Authorization": "Bearer look"})
            assert 'esm_api_throttles_total{kind="read"} 1.0' in text
            assert 'esm_api_throttles_total{kind="login"} 1.0' in text
