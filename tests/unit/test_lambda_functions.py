"""The Lambda API on functions, as boto3 uses it: reserved concurrency and settings of asynchronous invocation."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from model.function_config import EventInvokeConfig, FunctionConfig, FunctionPart
from tests.support.lambda_rig import FUNCTION, QUEUE, LambdaRig, lambda_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESERVED = "ReservedConcurrentExecutions"
UNQUALIFIED_ONLY = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
    "Please specify either a function name or an unqualified function ARN."
)
NOTHING: dict[str, Any] = {"OnSuccess": {}, "OnFailure": {}}
NEGATIVE = "Member must have value greater than or equal to 0"
ENDS = f"onSuccess=OnSuccess(destination=arn:aws:s3:::b), onFailure=OnFailure(destination={QUEUE})"


@pytest.fixture
async def rig() -> AsyncIterator[LambdaRig]:
    """Serve the API."""
    async with lambda_rig() as rig:
        yield rig


async def refusal(rig: LambdaRig, operation: str, **parameters: Any) -> tuple[int, str, str]:
    """Return the status, type and message of a refusal."""
    with pytest.raises(ClientError) as caught:
        await rig.call(operation, **parameters)
    response = caught.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def said(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what differs from run to run."""
    return {key: value for key, value in answer.items() if key not in ("ResponseMetadata", "LastModified")}


async def test_concurrency_is_reserved_told_and_given_up(rig: LambdaRig) -> None:
    """Put, get and delete do what they do in AWS, by name and by ARN; without a reservation nothing is told."""
    assert said(await rig.call("get_function_concurrency", FunctionName="f")) == {}
    put = await rig.call("put_function_concurrency", FunctionName=FUNCTION + "f", **{RESERVED: 7})
    assert (said(put), put["ResponseMetadata"]["HTTPStatusCode"]) == ({RESERVED: 7}, 200)
    assert said(await rig.call("get_function_concurrency", FunctionName="f")) == {RESERVED: 7}
    assert (await rig.store.functions.functions()).reserved() == {"f": 7}
    for _ in range(2):
        gone = await rig.call("delete_function_concurrency", FunctionName="f")
        assert gone["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert said(await rig.call("get_function_concurrency", FunctionName="f")) == {}


async def test_reserving_leaves_some_for_the_others(rig: LambdaRig) -> None:
    """The account's limit is never reserved but for a hundred; what the function has already counts for it."""
    await rig.call("put_function_concurrency", FunctionName="f", **{RESERVED: 800})
    await rig.call("put_function_concurrency", FunctionName="f", **{RESERVED: 900})
    message = (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
        "its minimum value of [100]."
    )
    refused = await refusal(rig, "put_function_concurrency", FunctionName="g", **{RESERVED: 1})
    assert refused == (400, "InvalidParameterValueException", message)
    await rig.call("put_function_concurrency", FunctionName="g", **{RESERVED: 0})
    account = await rig.call("get_account_settings")
    assert account["AccountLimit"]["ConcurrentExecutions"] == 1000
    assert account["AccountLimit"]["UnreservedConcurrentExecutions"] == 100
    assert account["AccountUsage"] == {"TotalCodeSize": 0, "FunctionCount": 2}


async def test_concurrency_is_of_functions_that_are_there(rig: LambdaRig) -> None:
    """Functions that no file lists are not found, versions of a function have no concurrency of their own."""
    missing = (404, "ResourceNotFoundException", f"Function not found: {FUNCTION}other")
    for operation, more in (
        ("put_function_concurrency", {RESERVED: 1}),
        ("get_function_concurrency", {}),
        ("delete_function_concurrency", {}),
    ):
        assert await refusal(rig, operation, FunctionName="other", **more) == missing
        refused = await refusal(rig, operation, FunctionName="f:$LATEST", **more)
        assert refused == (400, "InvalidParameterValueException", UNQUALIFIED_ONLY)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "Value null at 'reservedConcurrentExecutions' failed to satisfy constraint: Member must not be null."),
        (
            b'{"ReservedConcurrentExecutions": -1}',
            "Value '-1' at 'reservedConcurrentExecutions' failed to satisfy constraint: " + NEGATIVE,
        ),
    ],
)
async def test_a_concurrency_that_is_none_is_refused(rig: LambdaRig, body: bytes, message: str) -> None:
    """What boto3 would not even send is refused in AWS's words."""
    url = f"{rig.url}/2017-10-31/functions/f/concurrency"
    async with aiohttp.ClientSession() as session, session.put(url, data=body) as response:
        told = (await response.json())["message"]
        assert (response.status, response.headers["x-amzn-ErrorType"]) == (400, "ValidationException")
    assert told == f"1 validation error detected: {message}"


async def test_settings_are_replaced_merged_told_and_removed(rig: LambdaRig) -> None:
    """Put replaces, update merges, get and list tell what was given, delete brings the defaults back."""
    arn = f"{FUNCTION}f:$LATEST"
    put = await rig.call("put_function_event_invoke_config", FunctionName="f", MaximumRetryAttempts=0)
    assert said(put) == {"FunctionArn": arn, "MaximumRetryAttempts": 0, "DestinationConfig": NOTHING}
    assert abs((datetime.now(UTC) - put["LastModified"]).total_seconds()) < 60
    ends = {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}
    updated = await rig.call(
        "update_function_event_invoke_config",
        FunctionName="f",
        Qualifier="$LATEST",
        MaximumEventAgeInSeconds=60,
        DestinationConfig=ends,
    )
    whole = {
        "FunctionArn": arn, "MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60, "DestinationConfig": ends,
    }  # fmt: skip
    assert said(updated) == whole
    assert said(await rig.call("get_function_event_invoke_config", FunctionName="f:$LATEST")) == whole
    listed = await rig.call("list_function_event_invoke_configs", FunctionName="f", MaxItems=5)
    assert [said(one) for one in listed["FunctionEventInvokeConfigs"]] == [whole]
    config = (await rig.store.functions.functions()).config("f")
    assert config == FunctionConfig(event_invoke=EventInvokeConfig(0, 60, on_failure=QUEUE))
    await rig.call("put_function_event_invoke_config", FunctionName="f", MaximumEventAgeInSeconds=120)
    replaced = said(await rig.call("get_function_event_invoke_config", FunctionName="f"))
    assert replaced == {"FunctionArn": arn, "MaximumEventAgeInSeconds": 120, "DestinationConfig": NOTHING}
    gone = await rig.call("delete_function_event_invoke_config", FunctionName="f")
    assert gone["ResponseMetadata"]["HTTPStatusCode"] == 204
    nothing = await rig.call("list_function_event_invoke_configs", FunctionName="f")
    assert nothing["FunctionEventInvokeConfigs"] == []


async def test_settings_that_are_not_there_are_not_found(rig: LambdaRig) -> None:
    """A function without settings, one that is not there, and a version that is not: each in AWS's words."""
    none = (404, "ResourceNotFoundException", f"The function {FUNCTION}f:$LATEST doesn't have an EventInvokeConfig")
    missing = (404, "ResourceNotFoundException", "The function doesn't exist.")
    for operation, more in (
        ("get_function_event_invoke_config", {}),
        ("delete_function_event_invoke_config", {}),
        ("update_function_event_invoke_config", {"MaximumRetryAttempts": 1}),
    ):
        assert await refusal(rig, operation, FunctionName="f", **more) == none
        assert await refusal(rig, operation, FunctionName="other", **more) == missing
        assert await refusal(rig, operation, FunctionName="f", Qualifier="live", **more) == missing
    assert await refusal(rig, "list_function_event_invoke_configs", FunctionName="other") == missing
    refused = await refusal(rig, "get_function_event_invoke_config", FunctionName="f:1", Qualifier="2")
    message = "The derived qualifier from the function name does not match the specified qualifier."
    assert refused == (400, "InvalidParameterValueException", message)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "You must specify at least one of error handling or destination setting."),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": FUNCTION + "f"}}},
            "You can't specify the function as a destination for itself.",
        ),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": FUNCTION + "other"}}},
            f"The destination ARN {FUNCTION}other is invalid.",
        ),
        (
            {
                "DestinationConfig": {
                    "OnSuccess": {"Destination": "arn:aws:s3:::b"},
                    "OnFailure": {"Destination": QUEUE},
                }
            },
            f"The provided destination config DestinationConfig({ENDS}) is invalid.",
        ),
    ],
)
async def test_settings_that_cannot_work_are_refused(rig: LambdaRig, wish: dict[str, Any], message: str) -> None:
    """What AWS refuses is refused in its words, and nothing is changed."""
    refused = await refusal(rig, "put_function_event_invoke_config", FunctionName="f", **wish)
    assert refused == (400, "InvalidParameterValueException", message)
    assert (await rig.store.functions.functions()).functions == {}


async def test_two_apis_changing_different_parts_do_not_meet(rig: LambdaRig) -> None:
    """Concurrency and settings that are put side by side through two nodes both hold; no reservation is too much."""
    async with aclosing(rig.store), lambda_rig(rig.store) as other, asyncio.TaskGroup() as tasks:
        for number in range(1, 6):
            tasks.create_task(rig.call("put_function_concurrency", FunctionName="f", **{RESERVED: number}))
            tasks.create_task(
                other.call("put_function_event_invoke_config", FunctionName="f", MaximumRetryAttempts=number % 3)
            )
            tasks.create_task(other.call("put_function_concurrency", FunctionName="g", **{RESERVED: number}))
    functions = (await rig.store.functions.functions()).functions
    assert set(functions["f"]) == {FunctionPart.CONCURRENCY, FunctionPart.EVENT_INVOKE}
    assert set(functions["g"]) == {FunctionPart.CONCURRENCY}
