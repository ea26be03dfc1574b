"""The Lambda API, judged by AWS's own client and by its model of the answers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import StoreUnavailableError
from model.mapping import MappingState
from model.mapping_rules import canonical_document
from model.progress import ShardState
from model.rules.parameters import EXTENSION_PARAMETERS, PARAMETERS
from statemgr.memory_store import MemoryStore
from tests.support.lambda_rig import FUNCTION, QUEUE, STREAM, LambdaRig, lambda_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from model.lease import FleetSnapshot
    from model.mapping import MappingRecord

PATH = "/2015-03-31/event-source-mappings"
OURS = {"Name", "extensions"}
KAFKA: dict[str, Any] = {
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["127.0.0.1:9092"]}},
    "Topics": ["audit"],
}


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


async def raw(rig: LambdaRig, method: str, path: str, body: Any = None) -> tuple[int, str | None, Any]:
    """Ask without a client that checks; return status, error type and document."""
    async with aiohttp.ClientSession() as session, session.request(method, rig.url + path, json=body) as answer:
        return answer.status, answer.headers.get("x-amzn-ErrorType"), await answer.json()


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


class FailingStore(MemoryStore):
    """Cannot be reached when it is asked for a snapshot, or for anything."""

    away = False

    async def snapshot(self) -> FleetSnapshot:
        """See `LeaseStore.snapshot`."""
        raise StoreUnavailableError("redis: no answer")

    async def mappings(self) -> tuple[int, Sequence[MappingRecord]]:
        """See `MappingStore.mappings`."""
        if self.away:
            raise StoreUnavailableError("redis: no answer")
        return await super().mappings()


async def test_a_store_that_is_away_is_told_so_that_clients_try_again() -> None:
    """503 where nothing was done; what was done is told as done, although no more can be read."""
    store = FailingStore()
    async with lambda_rig(store) as rig:
        made = await rig.call("create_event_source_mapping", FunctionName="f", **KAFKA)
        assert (made["State"], made["LastProcessingResult"]) == ("Creating", "No records processed")
        store.away = True
        status, type_, document = await raw(rig, "GET", f"{PATH}/{made['UUID']}")
    assert (status, type_) == (503, "ServiceException")
    assert document == {"Type": "Service", "Message": "redis: no answer"}


async def test_secrets_of_the_node_are_named_only_by_who_is_known(rig: LambdaRig) -> None:
    """Without credentials nobody can have a file of the node's sent to a server of his own; AWS's secrets are fine."""
    access = {"SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": "${file:/etc/secret}"}]}
    body = {"FunctionName": "f", **KAFKA, **access}
    status, _, document = await raw(rig, "POST", PATH, body)
    assert (status, "only where `auth` is set" in document["message"]) == (400, True)
    rig.around.trusted = True
    assert (await raw(rig, "POST", PATH, body))[0] == 202
    rig.around.trusted = False
    (record,) = (await rig.store.mappings())[1]
    await rig.settle(record.id)
    assert (await raw(rig, "PUT", f"{PATH}/{record.id}", {"BatchSize": 5}))[0] == 202
    arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:kafka"
    open_to_all = {**body, "FunctionName": "g", "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": arn}]}
    assert (await raw(rig, "POST", PATH, open_to_all))[0] == 202


async def test_answers_hold_nothing_that_aws_has_no_name_for(rig: LambdaRig) -> None:
    """Every member of every kind of mapping is in botocore's model, with its type; ours are two."""
    shape = rig.client.meta.service_model.shape_for("EventSourceMappingConfiguration")
    bodies: list[dict[str, Any]] = [
        {"EventSourceArn": QUEUE, "ScalingConfig": {"MaximumConcurrency": 5}, "Tags": {"a": "b"}, "Name": "queue"},
        {"EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1_700_000_000.5},
        {
            **KAFKA,
            "ProvisionedPollerConfig": {"MinimumPollers": 2},
            "MaximumRetryAttempts": 2,
            "extensions": {"parallelization_factor": 4},
            "MetricsConfig": {"Metrics": ["EventCount"]},
            "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k",
            "FilterCriteria": {"Filters": [{"Pattern": '{"value": {"a": [1]}}'}]},
        },
    ]
    for body in bodies:
        status, _, document = await raw(rig, "POST", PATH, {"FunctionName": "f", **body})
        assert status == 202, document
        assert set(document) - OURS <= set(shape.members)
        parsed = await rig.call("get_event_source_mapping", UUID=document["UUID"])
        del parsed["ResponseMetadata"]
        report = ParamValidator().validate(parsed, shape)
        assert not report.has_errors(), report.generate_report()
    listed = await rig.call("list_event_source_mappings")
    assert ["FilterCriteria" in one for one in listed["EventSourceMappings"] if "KMSKeyArn" in one] == [False]


async def test_a_named_mapping_is_the_one_that_files_know(rig: LambdaRig) -> None:
    """A Name, which is ours, stands for the id wherever an id is asked for."""
    body = {"EventSourceArn": QUEUE, "FunctionName": "f", "Name": "orders"}
    _, _, made = await raw(rig, "POST", PATH, body)
    assert (await raw(rig, "GET", f"{PATH}/orders"))[2]["UUID"] == made["UUID"]
    assert (await rig.record(made["UUID"])).document == canonical_document(body)
    status, _, document = await raw(rig, "POST", PATH, {**body, "FunctionName": "g"})
    assert (status, document["message"]) == (409, "Another event source mapping has, or had, the Name orders")


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 10_001)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from([QUEUE, STREAM, "f", "LATEST", "AT_TIMESTAMP", "audit", "127.0.0.1:9092", "${env:A}", "orders"])
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*PARAMETERS, *EXTENSION_PARAMETERS, "Filters", "Pattern"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
_NEARLY_RIGHT = st.builds(
    lambda base, more: {**base, **more},
    st.sampled_from(
        [
            {"EventSourceArn": QUEUE, "FunctionName": "f"},
            {"EventSourceArn": STREAM, "FunctionName": "f", "StartingPosition": "LATEST"},
            {"FunctionName": "f", **KAFKA},
            {},
        ]
    ),
    st.dictionaries(st.sampled_from(list(PARAMETERS)), _JSON, max_size=4),
)


def test_no_request_makes_the_node_stumble() -> None:
    """Whatever is sent is answered with success or a 4xx that has a type and a message."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def begin() -> tuple[LambdaRig, aiohttp.ClientSession]:
            rig = await stack.enter_async_context(lambda_rig())
            return rig, await stack.enter_async_context(aiohttp.ClientSession())

        rig, session = runner.run(begin())

        async def ask(method: str, path: str, body: Any) -> tuple[int, str | None, bytes]:
            sent = {"data": body} if isinstance(body, bytes) else {"json": body}
            async with session.request(method, rig.url + path, **sent) as answer:
                return answer.status, answer.headers.get("x-amzn-ErrorType"), await answer.read()

        async def target() -> str:
            _, records = await rig.store.mappings()
            for record in records:
                await rig.settle(record.id)
            return str(records[0].id) if records else "nobody"

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(
            body=_NEARLY_RIGHT | _JSON | st.binary(max_size=30),
            how=st.sampled_from(["create", "update", "tag", "apply"]),
        )
        def check(body: Any, how: str) -> None:
            uuid = runner.run(target())
            paths = {
                "create": ("POST", PATH),
                "update": ("PUT", f"{PATH}/{uuid}"),
                "apply": ("POST", "/esmd/v1/apply"),
                "tag": ("POST", f"/2017-03-31/tags/{rig.around.mapping_arn(uuid)}"),  # type: ignore[arg-type]
            }
            sent = {"mappings": [{"Name": "orders", **body}]} if how == "apply" and isinstance(body, dict) else body
            status, type_, text = runner.run(ask(*paths[how], sent))
            assert status < 500, text
            assert how == "apply" or (type_ is None) == (status < 400), text

        try:
            check()
        finally:
            runner.run(stack.aclose())
