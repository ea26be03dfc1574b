"""The operations that are esmd's own, described by the types that their handlers decode and encode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from controlplane.differences import Differences
from controlplane.explain import Explanation
from controlplane.status import Status
from node.console_api import EVENTS, PAGE, page_types
from node.openapi.lambda_operations import errors
from node.openapi.operation import ANY, NAME, TEXT, Answer, Body, Operation, component, path
from node.plan_api import PlanRequest
from node.redrive import RedriveRequest
from node.replay import ReplayRequest
from node.seek import SeekAnswer, SeekRequest
from node.serve import Liveness, ReadyAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.openapi.operation import Schema

_ASKED = (PlanRequest, RedriveRequest, ReplayRequest, SeekRequest)
_TOLD = (Differences, Explanation, Liveness, ReadyAnswer, SeekAnswer, Status)
ANY_METHOD = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
_MAPPING = path("mapping", NAME, "A mapping's name or UUID")
_FUNCTION = path("function", NAME, "A function's name")
_LINES = "application/x-ndjson"
_UNREADY = 503


def schemas() -> dict[str, Schema]:
    """Return the schemas of what is asked and told, by name."""
    _, asked = msgspec.json.schema_components(_ASKED, ref_template="#/components/schemas/{name}")
    _, told = msgspec.json.schema_components(_TOLD, ref_template="#/components/schemas/{name}")
    for schema in told.values():
        if "properties" in schema:  # what is told is told in full, defaults too
            schema["required"] = list(schema["properties"])
            schema["additionalProperties"] = False
    own: dict[str, Any] = {**asked, **told, "Error": _ERROR}
    return own


_ERROR: Schema = {
    "type": "object",
    "description": "Why a request was refused. Some of AWS's types say `Message`, others `message`; ours `message`",
    "properties": {
        "Type": {"enum": ["User", "Service"]},
        "message": TEXT,
        "Message": TEXT,
        "Reason": TEXT,
        "problems": {
            "type": "array",
            "description": "Of documents: each rule that is broken, and where",
            "items": {
                "type": "object",
                "properties": {"path": TEXT, "rule": TEXT},
                "required": ["path", "rule"],
                "additionalProperties": False,
            },
        },
    },
    "anyOf": [{"required": ["message"]}, {"required": ["Message"]}],
    "additionalProperties": False,
}


def operations() -> Iterator[Operation]:
    """Yield all of them."""
    yield from _health()
    yield from _console()
    yield from _mappings()
    yield from _fleet()
    yield from _function_urls()


def _answers(status: int, about: str, body: Body | None, *more: int, sent: bool = False) -> dict[int, Answer]:
    return {**errors(*more, body=sent), status: Answer(about, body)}


def _health() -> Iterator[Operation]:
    for where, type_, summary, good, bad in (
        ("/healthz", Liveness, "Whether the node is alive", "It is", "Its event loop was stuck"),
        (
            "/readyz",
            ReadyAnswer,
            "Whether the node does its part of the work",
            "It does",
            "Not now; the reasons say why",
        ),
    ):
        body = Body(component(type_.__name__))
        answers = {200: Answer(good, body), _UNREADY: Answer(bad, body), 403: Answer("Not from here", _error())}
        yield Operation("GET", where, type_.__name__, summary, "Health", answers, open_=True)
    text = Body(TEXT, "text/plain")
    yield Operation(
        "GET", "/metrics", "Metrics", "All metrics, for Prometheus", "Health", _answers(200, "Prometheus's text", text)
    )
    status = Body(component("Status"))
    answers = _answers(200, "The fleet, its mappings and their shards", status)
    yield Operation("GET", "/esmd/v1/status", "Status", "What `esmd status --json` prints", "Health", answers)
    document = Answer("This document, of what this node serves", Body({"type": "object"}))
    yield Operation(
        "GET",
        "/esmd/v1/openapi.json",
        "OpenApi",
        "What requests there are",
        "Health",
        {**errors(body=False), 200: document},
    )


def _console() -> Iterator[Operation]:
    for where, kind in page_types().items():
        name = where.removeprefix(PAGE).strip("/").replace(".", " ").title().replace(" ", "")
        id_ = "Console" + (name or ("WithSlash" if where.endswith("/") else ""))
        answers = {200: Answer("A file of the page", Body(TEXT, kind)), 403: Answer("Not from here", _error())}
        yield Operation("GET", where, id_, "The console's page, which holds no data", "Console", answers, open_=True)
    stream = Body(TEXT, "text/event-stream")
    about = "Server-sent events: `you`, then `view` once a second and more, `trouble`, and `again` or `bye` at the end"
    yield Operation(
        "GET",
        EVENTS,
        "Events",
        "What the console shows, for as long as one looks",
        "Console",
        _answers(200, about, stream),
    )


def _mappings() -> Iterator[Operation]:
    root = "/esmd/v1/mappings/{mapping}"
    explanation = _answers(200, "Why it is where it is", Body(component("Explanation")), 404)
    yield Operation(
        "GET", f"{root}/explain", "Explain", "What `esmd explain --json` prints", "Mappings", explanation, (_MAPPING,)
    )
    moved = Body(component("SeekAnswer"))
    stands = {202: Answer("The wish stands, and no node has met it yet", moved)}
    yield Operation(
        "POST",
        f"{root}/seek",
        "Seek",
        "Move a mapping's position",
        "Mappings",
        {**_answers(200, "What becomes of each shard", moved, 404, 409, sent=True), **stands},
        (_MAPPING,),
        Body(component("SeekRequest"), examples={"back": {"to": "trim_horizon", "dry_run": True}}, required=True),
    )
    lines = (
        "Lines of JSON, each a document with `event`: begin, progress, waiting, kept, alive; the last one end or error"
    )
    for name, type_, example in (
        ("redrive", "RedriveRequest", {"from": "parked", "dry_run": True}),
        ("replay", "ReplayRequest", {"from_ms": 1_777_629_600_000, "dry_run": True}),
    ):
        yield Operation(
            "POST",
            f"{root}/{name}",
            name.title(),
            f"Run a {name} for as long as the client listens",
            "Mappings",
            _answers(200, lines, Body(TEXT, _LINES), 404, 409, sent=True),
            (_MAPPING,),
            Body(component(type_), examples={"look": example}, required=name == "replay"),
        )
    for name, summary in (("plan", "Show"), ("apply", "Make")):
        yield Operation(
            "POST",
            f"/esmd/v1/{name}",
            name.title(),
            f"{summary} the changes to mappings that documents ask for",
            "Mappings",
            _answers(200, "The changes", Body(component("Differences")), 409, sent=True),
            (),
            Body(component("PlanRequest"), examples={"nothing": {"mappings": []}}, required=True),
        )


def _fleet() -> Iterator[Operation]:
    packed = Body({"description": "MessagePack, between nodes of one version"}, "application/x-msgpack", required=True)
    yield Operation(
        "POST",
        "/esmd/v1/environments/{function}/invocations",
        "RunForNode",
        "Run a function for another node of the fleet; only its nodes may",
        "Fleet",
        _answers(200, "What came of it, in MessagePack", Body({}, "application/x-msgpack"), 409, sent=True),
        (_FUNCTION,),
        packed,
    )


def _function_urls() -> Iterator[Operation]:
    rest = path("rest", TEXT, "Any path: the function is told")
    for where, parameters in (
        ("/functions/{function}/url", (_FUNCTION,)),
        ("/functions/{function}/url/{rest}", (_FUNCTION, rest)),
    ):
        for method in ANY_METHOD:
            yield Operation(
                method,
                where,
                f"Url{method.title()}" + ("Path" if len(parameters) > 1 else ""),
                "Call a function that has `http: true` like a web server",
                "Function URLs",
                {ANY: Answer("Whatever the function answers, or why it was not called", anything=True)},
                parameters,
                None if method in ("GET", "HEAD", "OPTIONS", "TRACE", "DELETE") else Body({}, "*/*"),
            )


def _error() -> Body:
    return Body(component("Error"))
