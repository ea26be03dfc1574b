"""A collector of OpenTelemetry traces: takes OTLP over HTTP, and keeps the spans it was sent."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.web_server import served

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent: str
    attributes: dict[str, str | int]
    resource: dict[str, str | int]
    links: list[tuple[str, str]]  # trace and span ids
    failed: bool
    message: str

    @property
    def traceparent(self) -> str:
        """What names it to others."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class OtlpReceiver:
    """An HTTP server for spans. Use as an async context manager; `status` may be changed meanwhile."""

    def __init__(self, *, status: int = 200, port: int = 0) -> None:
        self.status = status
        self.spans: list[ReceivedSpan] = []
        self.requests = 0
        self._port = port
        self._serving = AsyncExitStack()
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self.url = await self._serving.enter_async_context(served(app, port=self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._serving.aclose()

    def of(self, mapping: str) -> list[ReceivedSpan]:
        """Return a mapping's spans."""
        return [span for span in self.spans if span.attributes.get("esmd.mapping") == mapping]

    async def _take(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.status != 200:
            return web.Response(status=self.status)
        message = ExportTraceServiceRequest()
        message.ParseFromString(await request.read())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans += [_span(span, _values(resource.resource.attributes)) for span in scope.spans]
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")


def _span(span: Any, resource: dict[str, str | int]) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _values(span.attributes),
        resource,
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == 2,  # STATUS_CODE_ERROR
        message=span.status.message,
    )


def _values(attributes: Iterable[Any]) -> dict[str, str | int]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
