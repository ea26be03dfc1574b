"""The Lambda API, judged by AWS's own client and by its model of the answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from model.mapping import MappingState
from model.progress import ShardState
from tests.support.lambda_rig import FUNCTION, KAFKA, PATH, QUEUE, STREAM, LambdaRig, lambda_rig, raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def rig() -> AsyncIterator[LambdaRig]:
    """Serve the API."""
    async with lambda_rig() as served:
        yield served


async def refusal(call: Any) -> tuple[int, str, str]:
    """Return status, type and message of a call that boto3 reports as refused."""
    with pytest.raises(ClientError) as caught:
        await call
    error: Any = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"], error["Error"]["Message"]


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration says besides what differs from run to run."""
    run = {"ResponseMetadata", "UUID", "EventSourceMappingArn", "LastModified"}
    return {key: value for key, value in answer.items() if key not in run}


async def test_a_queue_has_the_defaults_of_aws(rig: LambdaRig) -> None:
    """What is created says all that AWS says, and nothing else (spec section 7.2)."""
    made = await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="f")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert told(made) == {
        "EventSourceArn": QUEUE,
        "FunctionArn": FUNCTION + "f",
        "BatchSize": 10,
        "FunctionResponseTypes": [],
        "MaximumBatchingWindowInSeconds": 0,
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
    }
    assert made["EventSourceMappingArn"].endswith(f":event-source-mapping:{made['UUID']}")


async def test_a_stream_has_the_defaults_of_aws(rig: LambdaRig) -> None:
    """What is created says all that AWS says, and nothing else (spec section 7.2)."""
    made = await rig.call(
        "create_event_source_mapping", EventSourceArn=STREAM, FunctionName="f:live", StartingPosition="LATEST"
    )
    assert told(made) == {
        "EventSourceArn": STREAM,
        "FunctionArn": FUNCTION + "f:live",
        "StartingPosition": "LATEST",
        "BatchSize": 100,
        "BisectBatchOnFunctionError": False,
        "DestinationConfig": {"OnFailure": {}},
        "FunctionResponseTypes": [],
        "MaximumBatchingWindowInSeconds": 0,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "ParallelizationFactor": 1,
        "TumblingWindowInSeconds": 0,
        "LastProcessingResult": "No records processed",
        "State": "Creating",
        "StateTransitionReason": "User action",
    }


async def test_a_kafka_topic_has_the_defaults_of_aws(rig: LambdaRig) -> None:
    """The group is the mapping's id, and no window is told."""
    made = await rig.call("create_event_source_mapping", FunctionName="f", **KAFKA)
    assert told(made) == {
        **KAFKA,
        "FunctionArn": FUNCTION + "f",
        "BatchSize": 100,
        "StartingPosition": "TRIM_HORIZON",
        "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": made["UUID"]},
        "LastProcessingResult": "No records processed",
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
    }


async def test_states_walk_as_in_aws(rig: LambdaRig) -> None:
    """Creating, Updating, Disabling, Enabling, Deleting, gone; each moved on by the tracker (spec section 7.3)."""
    uuid = (await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="f"))["UUID"]
    assert (await rig.call("get_event_source_mapping", UUID=uuid))["State"] == "Creating"
    for settled, wish, state in (
        (MappingState.ENABLED, {"BatchSize": 5}, "Updating"),
        (MappingState.ENABLED, {"Enabled": False}, "Disabling"),
        (MappingState.DISABLED, {"BatchSize": 6}, "Updating"),
        (MappingState.DISABLED, {"Enabled": True}, "Enabling"),
    ):
        await rig.settle(uuid, settled)
        answer = await rig.call("update_event_source_mapping", UUID=uuid, **wish)
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["State"]) == (202, state)
    await rig.settle(uuid)
    gone = await rig.call("delete_event_source_mapping", UUID=uuid)
    assert (gone["ResponseMetadata"]["HTTPStatusCode"], gone["State"], gone["BatchSize"]) == (202, "Deleting", 6)
    await rig.remove(uuid)
    expected = (404, "ResourceNotFoundException", "The resource you requested does not exist.")
    assert await refusal(rig.call("get_event_source_mapping", UUID=uuid)) == expected
    assert await refusal(rig.call("update_event_source_mapping", UUID=uuid, BatchSize=1)) == expected
    assert await refusal(rig.call("delete_event_source_mapping", UUID=uuid)) == expected


async def test_a_disabled_mapping_is_so_at_once(rig: LambdaRig) -> None:
    """Create with Enabled=false answers Disabled (spec section 7.3)."""
    made = await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="f", Enabled=False)
    assert made["State"] == "Disabled"


async def test_a_mapping_on_its_way_is_in_use(rig: LambdaRig) -> None:
    """Neither updated nor deleted, unless its tracker cannot go on: then somebody has to mend or delete it."""
    uuid = (await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="f"))["UUID"]
    used = (400, "ResourceInUseException", "Cannot update the event source mapping because it is in use.")
    assert await refusal(rig.call("update_event_source_mapping", UUID=uuid, BatchSize=5)) == used
    used = (400, "ResourceInUseException", "Cannot delete the event source mapping because it is in use.")
    assert await refusal(rig.call("delete_event_source_mapping", UUID=uuid)) == used
    await rig.report(uuid, ShardState.FAILED, "PROBLEM: no such queue")
    assert (await rig.call("update_event_source_mapping", UUID=uuid, BatchSize=5))["State"] == "Updating"
    assert (await rig.call("delete_event_source_mapping", UUID=uuid))["State"] == "Deleting"
    assert await refusal(rig.call("delete_event_source_mapping", UUID=uuid)) == used


async def test_what_aws_says_of_wrong_requests(rig: LambdaRig) -> None:
    """Statuses, types and messages of spec section 7.5."""
    bad = "InvalidParameterValueException"
    create = "create_event_source_mapping"
    assert await refusal(rig.call(create, FunctionName="f")) == (400, bad, "Unrecognized event source.")
    missing = rig.call(create, EventSourceArn=QUEUE, FunctionName="h")
    assert await refusal(missing) == (400, bad, "Function does not exist")
    null = (
        "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
        "Member must not be null."
    )
    stream = {"EventSourceArn": STREAM, "FunctionName": "f"}
    assert (await refusal(rig.call(create, **stream)))[::2] == (400, null)
    word = (
        "1 validation error detected: Value 'invalid' at 'startingPosition' failed to satisfy constraint: "
        "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    )
    wrong = rig.call(create, **stream, StartingPosition="invalid")
    assert await refusal(wrong) == (400, "ValidationException", word)
    rig.around.missing[STREAM] = f"Stream not found: {STREAM}"
    gone = rig.call(create, **stream, StartingPosition="LATEST")
    assert await refusal(gone) == (400, bad, f"Stream not found: {STREAM}")
    made = await rig.call(create, EventSourceArn=QUEUE, FunctionName="f")
    again = (
        f'An event source mapping with SQS arn (" {QUEUE} ") and function (" f ") already exists. '
        f"Please update or delete the existing mapping with UUID {made['UUID']}"
    )
    twice = rig.call(create, EventSourceArn=QUEUE, FunctionName="f")
    assert await refusal(twice) == (409, "ResourceConflictException", again)
    status, type_, document = await raw(
        rig, "POST", PATH, {"EventSourceArn": QUEUE, "FunctionName": "f", "BatchSise": 1}
    )
    assert (status, type_) == (400, bad)
    assert document == {"Type": "User", "message": "BatchSise: unknown key; did you mean BatchSize?"}
    status, type_, document = await raw(rig, "GET", f"{PATH}/nobody")
    assert (status, type_) == (404, "ResourceNotFoundException")
    assert document == {"Type": "User", "Message": "The resource you requested does not exist."}


async def test_an_update_keeps_what_it_does_not_name(rig: LambdaRig) -> None:
    """And removes what is set to nothing, as AWS's own console does."""
    pattern = '{"body": {"a": [1]}}'
    made = await rig.call(
        "create_event_source_mapping",
        EventSourceArn=STREAM,
        FunctionName="f",
        StartingPosition="TRIM_HORIZON",
        FilterCriteria={"Filters": [{"Pattern": pattern.replace("body", "data")}]},
        DestinationConfig={"OnFailure": {"Destination": QUEUE + "-failed"}},
        MaximumRetryAttempts=3,
    )
    uuid = made["UUID"]
    await rig.settle(uuid)
    kept = await rig.call("update_event_source_mapping", UUID=uuid, BatchSize=7)
    assert told(kept) == {**told(made), "BatchSize": 7, "State": "Updating"}
    await rig.settle(uuid)
    bare = await rig.call(
        "update_event_source_mapping",
        UUID=uuid,
        FilterCriteria={},
        DestinationConfig={"OnFailure": {"Destination": ""}},
        FunctionName="g",
    )
    assert "FilterCriteria" not in bare
    assert (bare["DestinationConfig"], bare["FunctionArn"]) == ({"OnFailure": {}}, FUNCTION + "g")


async def test_where_a_mapping_reads_is_for_ever(rig: LambdaRig) -> None:
    """Source, starting position and consumer group cannot be changed."""
    uuid = (await rig.call("create_event_source_mapping", FunctionName="f", **KAFKA))["UUID"]
    await rig.settle(uuid)
    for wish, name in (
        ({"Topics": ["other"]}, "Topics"),
        ({"StartingPosition": "LATEST"}, "StartingPosition"),
        ({"SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "other"}}, "ConsumerGroupId"),
    ):
        status, _, document = await raw(rig, "PUT", f"{PATH}/{uuid}", wish)
        assert (status, document["message"]) == (400, f"{name} cannot be changed. Create another mapping.")
    same = {"SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": uuid}, "BatchSize": 5}
    assert (await raw(rig, "PUT", f"{PATH}/{uuid}", same))[0] == 202


async def test_an_update_that_changes_nothing_disturbs_nothing(rig: LambdaRig) -> None:
    """The mapping stays as it is, so nothing is drained for it."""
    uuid = (await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="f", BatchSize=5))["UUID"]
    await rig.settle(uuid)
    before = await rig.record(uuid)
    for wish in ({"BatchSize": 5}, {"Enabled": True}, {"MaximumBatchingWindowInSeconds": 0}):
        assert (await rig.call("update_event_source_mapping", UUID=uuid, **wish))["State"] == "Enabled"
        assert await rig.record(uuid) == before


async def test_lists_come_in_pages(rig: LambdaRig) -> None:
    """boto3's paginator finds every mapping once; a filter leaves out others."""
    made = [
        (
            await rig.call(
                "create_event_source_mapping", EventSourceArn=f"{QUEUE}-{n}", FunctionName="f" if n % 2 else "g:live"
            )
        )["UUID"]
        for n in range(7)
    ]

    def pages(**parameters: Any) -> list[list[str]]:
        paginator = rig.client.get_paginator("list_event_source_mappings")
        return [[one["UUID"] for one in page["EventSourceMappings"]] for page in paginator.paginate(**parameters)]

    found = await asyncio.to_thread(pages, PaginationConfig={"PageSize": 3})
    assert [len(page) for page in found] == [3, 3, 1]
    assert sorted(uuid for page in found for uuid in page) == sorted(made)
    for function, expected in (
        ("f", made[1::2]),
        (FUNCTION + "f", made[1::2]),
        ("000000000000:function:g:live", made[::2]),
        ("g", []),
    ):
        assert sorted((await asyncio.to_thread(pages, FunctionName=function))[0]) == sorted(expected)
    one = await rig.call("list_event_source_mappings", EventSourceArn=f"{QUEUE}-3", FunctionName="f")
    assert [mapping["UUID"] for mapping in one["EventSourceMappings"]] == [made[3]]
    for slash in ("", "/"):
        status, _, document = await raw(rig, "GET", f"{PATH}{slash}?MaxItems=2")
        assert (status, len(document["EventSourceMappings"])) == (200, 2)


@pytest.mark.parametrize("query", ["MaxItems=0", "MaxItems=10001", "MaxItems=x", "Marker=%20", "FunctionName=a%20b"])
async def test_a_list_of_nonsense_is_refused(rig: LambdaRig, query: str) -> None:
    """A bad marker, number or name is the caller's mistake."""
    status, type_, _ = await raw(rig, "GET", f"{PATH}?{query}")
    assert (status, type_ in {"ValidationException", "InvalidParameterValueException"}) == (400, True)


async def test_tags_change_beside_the_mapping(rig: LambdaRig) -> None:
    """They are put, listed and dropped by the mapping's ARN, and its state stays."""
    made = await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="f", Tags={"a": "1"})
    arn = made["EventSourceMappingArn"]
    await rig.settle(made["UUID"])
    await rig.call("tag_resource", Resource=arn, Tags={"b": "2", "c": "3"})
    await rig.call("untag_resource", Resource=arn, TagKeys=["a", "b"])
    assert (await rig.call("list_tags", Resource=arn))["Tags"] == {"c": "3"}
    assert (await rig.call("get_event_source_mapping", UUID=made["UUID"]))["State"] == "Enabled"
    elsewhere = await refusal(rig.call("list_tags", Resource=arn[:-36] + "0" * 8 + "-0000-0000-0000-" + "0" * 12))
    assert elsewhere[:2] == (404, "ResourceNotFoundException")
    tagless = await refusal(rig.call("list_tags", Resource=FUNCTION + "f"))
    assert tagless[:2] == (404, "ResourceNotFoundException")


async def test_changes_at_the_same_time_are_all_made(rig: LambdaRig) -> None:
    """Two APIs on one store lose no update, and make no mapping twice."""
    async with lambda_rig(rig.store) as other, asyncio.TaskGroup() as tasks:
        creations = [
            tasks.create_task(raw(api, "POST", PATH, {"EventSourceArn": QUEUE, "FunctionName": "f", "Enabled": False}))
            for api in (rig, other) * 5
        ]
    statuses = sorted(task.result()[0] for task in creations)
    assert statuses == [202] + [409] * 9
    (record,) = (await rig.store.mappings())[1]
    wishes = [{"BatchSize": 9}, {"FunctionName": "g"}, {"FunctionResponseTypes": ["ReportBatchItemFailures"]}]
    await rig.settle(record.id, MappingState.DISABLED)
    for wish in wishes:  # each finds the mapping settled, whichever API it goes to
        assert (await raw(rig, "PUT", f"{PATH}/{record.id}", wish))[0] == 202
        await rig.settle(record.id, MappingState.DISABLED)
    arn = rig.around.mapping_arn(record.id)
    async with lambda_rig(rig.store) as other, asyncio.TaskGroup() as tasks:
        for number, api in enumerate((rig, other) * 5):
            tasks.create_task(api.mappings.retag(record.id, {f"t{number}": "x"}, [], by="test"))
    assert len((await rig.call("list_tags", Resource=arn))["Tags"]) == 10
    shown = await rig.call("get_event_source_mapping", UUID=record.id)
    assert (shown["BatchSize"], shown["FunctionArn"]) == (9, FUNCTION + "g")
