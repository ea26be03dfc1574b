"""What the Lambda API is in the face of trouble, strangers and nonsense, and that its answers are of AWS's model."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import StoreUnavailableError
from model.mapping_rules import canonical_document
from model.rules.parameters import EXTENSION_PARAMETERS, PARAMETERS
from statemgr.memory_store import MemoryStore
from tests.support.lambda_rig import KAFKA, PATH, QUEUE, STREAM, LambdaRig, lambda_rig, raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from model.lease import FleetSnapshot
    from model.mapping import MappingRecord

OURS = {"Name", "extensions"}


@pytest.fixture
async def rig() -> AsyncIterator[LambdaRig]:
    """Serve the API."""
    async with lambda_rig() as served:
        yield served


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
