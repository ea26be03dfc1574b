"""The Lambda API on a store in memory, served over HTTP, with what a node knows under the test's control."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from controlplane.lambda_errors import refused
from controlplane.lambda_functions import LambdaFunctions
from controlplane.lambda_mappings import LambdaMappings
from model.ids import TRACKER, ShardKey
from model.lease import Member
from model.mapping import MappingState
from model.progress import ShardReport
from model.rules.parameters import FUNCTION as FUNCTION_NAME
from node.lambda_api import LambdaApi
from node.lambda_functions_api import LambdaFunctionsApi
from node.plan_api import PlanApi
from statemgr.memory_store import MemoryStore
from tests.support.bare_surface import bare_node
from tests.support.fleet_values import ANN, LONG_S, take, update
from tests.support.lambda_client import lambda_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from model.ids import MappingId
    from model.lease import Lease
    from model.mapping import EventSourceMapping, MappingRecord
    from model.progress import ShardState

PATH = "/2015-03-31/event-source-mappings"
KAFKA: dict[str, Any] = {
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["127.0.0.1:9092"]}},
    "Topics": ["audit"],
}
QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:"
OWN = "000000000000"


class FakeSurroundings:
    """Knows the functions `f` and `g`, and every source but those named missing."""

    def __init__(self) -> None:
        self.trusted = False
        self.missing: dict[str, str] = {}  # what is said of a source, by its ARN

    def mapping_arn(self, mapping: MappingId) -> str:
        """See `Surroundings`."""
        return f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{mapping}"

    def function_arn(self, function_name: str) -> str:
        """See `Surroundings`."""
        if function_name.startswith("arn:"):
            return function_name
        return FUNCTION + function_name.rpartition("function:")[2]

    def function_problem(self, mapping: EventSourceMapping) -> str | None:
        """See `Surroundings`."""
        name = mapping.function_name.rpartition("function:")[2].partition(":")[0]
        return None if name in {"f", "g"} else "Function does not exist"

    async def check_source(self, mapping: EventSourceMapping) -> None:
        """See `Surroundings`."""
        message = self.missing.get(str(getattr(mapping.source, "arn", None)))
        if message is not None:
            raise refused("InvalidParameterValueException", message)

    # `FunctionSurroundings`: `f` and `g` are listed

    account_concurrency = 1000
    function_count = 2

    def listed_name(self, function_name: str) -> str | None:
        """See `FunctionSurroundings`."""
        parts = FUNCTION_NAME.fullmatch(function_name)
        ours = parts is not None and (parts["region"] or "us-east-1", parts["account"] or OWN) == ("us-east-1", OWN)
        return parts["name"] if parts is not None and ours and parts["name"] in {"f", "g"} else None

    def is_known(self, function_name: str) -> bool:
        """See `FunctionSurroundings`."""
        return self.listed_name(function_name) is not None


class LambdaRig:
    """The API, its store, and AWS's own client of it."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.around = FakeSurroundings()
        self.mappings = LambdaMappings(self.store, self.around)
        self.functions = LambdaFunctions(self.store.functions, self.around)
        self.url = ""
        self.client: Any = None
        self._trackers: dict[str, Lease] = {}

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of boto3's client, which blocks."""
        answer = await asyncio.to_thread(getattr(self.client, operation), **parameters)
        assert isinstance(answer, dict)
        return answer

    async def record(self, uuid: str) -> MappingRecord:
        """Return a mapping as the store has it."""
        return next(record for record in (await self.store.mappings())[1] if record.id == uuid)

    async def settle(self, uuid: str, state: MappingState = MappingState.ENABLED) -> None:
        """Move a mapping's state as its tracker would."""
        record = await self.record(uuid)
        tracker = await self._tracker(record)
        assert await self.store.set_mapping_state(record.id, state, record.state_reason, tracker=tracker)

    async def remove(self, uuid: str) -> None:
        """Do what the tracker does in the end of a deletion."""
        record = await self.record(uuid)
        assert await self.store.remove_mapping(record.id, tracker=await self._tracker(record))

    async def report(self, uuid: str, state: ShardState, result: str) -> None:
        """Have a mapping's tracker say how it fares."""
        tracker = await self._tracker(await self.record(uuid))
        await self.store.save([update(tracker, report=ShardReport(state, last_result=result, last_error=result))])

    async def _tracker(self, record: MappingRecord) -> Lease:
        if record.id not in self._trackers:
            await self.store.join(Member(ANN), ttl_s=LONG_S)
            self._trackers[record.id] = await take(self.store, ANN, ShardKey(record.id, TRACKER))
        return self._trackers[record.id]


@asynccontextmanager
async def lambda_rig(store: MemoryStore | None = None) -> AsyncIterator[LambdaRig]:
    """Serve the API on a free port."""
    rig = LambdaRig(store)
    apis = (LambdaApi(rig.mappings), LambdaFunctionsApi(rig.functions), PlanApi(rig.store, rig.around))
    async with bare_node([route for api in apis for route in api.routes()]) as address:
        rig.url = f"http://{address}"
        async with lambda_calls(rig.url) as rig.client:
            yield rig


async def raw(rig: LambdaRig, method: str, path: str, body: Any = None) -> tuple[int, str | None, Any]:
    """Ask without a client that checks; return status, error type and document."""
    async with aiohttp.ClientSession() as session, session.request(method, rig.url + path, json=body) as answer:
        return answer.status, answer.headers.get("x-amzn-ErrorType"), await answer.json()
