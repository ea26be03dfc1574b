"""The operations of the Lambda API. Requests are described by the shapes that judge them, answers by AWS's model."""

from __future__ import annotations

import base64
import io
import sys
import zipfile
from typing import TYPE_CHECKING, Any

from config.schema import SOURCES, mapping_parameters, shape_schema
from controlplane.lambda_documents import IMMUTABLE
from model.definition_rules import CREATE, UPDATE_CODE, UPDATE_CONFIGURATION, WITHOUT_EFFECT
from model.function_rules import CONCURRENCY, EVENT_INVOKE
from model.rules.parameters import PARAMETERS
from model.rules.shapes import MapOf
from node.openapi.lambda_model import API_REFERENCE, lambda_model
from node.openapi.operation import (
    NAME,
    TEXT,
    Answer,
    Body,
    Operation,
    component,
    header,
    or_null,
    path,
    query,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from node.openapi.operation import Parameter, Schema

_TYPE = {"x-amzn-ErrorType": "The type of the error, as AWS's clients know it"}
_REQUEST_ID = {"x-amzn-RequestId": "A number that the node's log may have, too"}
_AWAYS = {
    400: "The request is not in order",
    403: "The caller may not, or has not proved who he is",
    408: "The request did not come in time",
    413: "The request is larger than this node takes",
    415: "Forms of web pages are refused",
    429: "Too many requests, or too many at once: `Retry-After` says when there is room again",
    500: "A defect; the node's log has it",
    503: "The store does not answer, or the node is stopping: try again",
}

_ERRORS = {
    **_AWAYS,
    401: "The token is none of this node's",
    404: "There is none",
    409: "Something else is in the way",
    412: "It is another revision by now",
    502: "The function could not be reached",
}

_FUNCTION = path("function", NAME, "A function's name or ARN")
_FUNCTION_ARN = path("arn", NAME, "The ARN of a mapping or of a function")
_MAPPING = path("uuid", NAME, "The UUID of a mapping, or its Name")
_QUALIFIER = query("Qualifier", TEXT, "$LATEST, the only version there is")
_MARKER = query("Marker", TEXT, "`NextMarker` of the answer before")


def _most(largest: int, page: int) -> Parameter:
    schema = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": largest}, {"const": ""}]}
    return query("MaxItems", schema, f"At most so many, and never more than {page}; empty is as good as absent")


_QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
_STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
_EXAMPLES: Mapping[str, Any] = {
    "queue": {"EventSourceArn": _QUEUE, "FunctionName": "billing", "BatchSize": 10},
    "stream": {"EventSourceArn": _STREAM, "FunctionName": "billing", "StartingPosition": "TRIM_HORIZON"},
    "kafka": {
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["127.0.0.1:9092"]}},
        "Topics": ["audit"],
        "FunctionName": "billing",
        "StartingPosition": "LATEST",
        "extensions": {"parallelization_factor": 8},
    },
    "schedule": {"Name": "nightly", "schedule": "cron(0 3 * * ? *)", "FunctionName": "billing"},
}


def _created() -> Body:
    """Return what makes a mapping."""
    properties = {name: schema for name, schema in mapping_parameters().items() if name != "UUID"}
    properties["extensions"] = _without(properties["extensions"], {"renamed_from"})
    schema = _object(properties, required=("FunctionName",))
    # What is null is as good as absent, so `required` alone does not say it.
    given = [{"required": [one], "properties": {one: {"not": {"type": "null"}}}} for one in SOURCES]
    return Body({**schema, "oneOf": given}, examples=_EXAMPLES, required=True)


def _updated() -> Body:
    """Return what changes a mapping: what it does not name stays. What cannot change may be repeated."""
    properties = {name: schema for name, schema in mapping_parameters().items() if name not in IMMUTABLE}
    properties["extensions"] = _without(properties["extensions"], {"renamed_from"})
    for name in sorted(IMMUTABLE):
        properties[name] = {"description": "As it is: it cannot be changed"}
    return Body(_object(properties), examples={"size": {"BatchSize": 100}, "stop": {"Enabled": False}})


def _archive() -> str:
    """Return an archive with a function, as it is sent along."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("app.py"), "def handler(event, context):\n    return event\n")
    return base64.b64encode(written.getvalue()).decode()


def _function_examples() -> dict[str, Any]:
    runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
    role = "arn:aws:iam::000000000000:role/any"
    how = {"FunctionName": "hello", "Runtime": runtime, "Handler": "app.handler", "Role": role}
    return {"zip": {**how, "Code": {"ZipFile": _archive()}}}


def _of_function(
    table: Any, *, required: bool, function: bool = False, examples: Mapping[str, object] | None = None
) -> Body:
    """Return a request about a function. What is not available here may be asked for where it is so anyway."""
    schema = or_null(shape_schema(table))
    more: dict[str, Schema] = {
        name: {"description": "Not available here: taken where it asks for what is so anyway"}
        for name in WITHOUT_EFFECT
    }
    if function:
        more["FunctionName"] = {"description": "As in the path"}
    return Body({**schema, "properties": {**schema["properties"], **more}}, examples=examples or {}, required=required)


def _concurrency() -> Body:
    members: dict[str, Schema] = {"ReservedConcurrentExecutions": shape_schema(CONCURRENCY), "FunctionName": {}}
    return Body(_object(members, required=("ReservedConcurrentExecutions",)), required=True)


def _event_invoke() -> Body:
    members = shape_schema(EVENT_INVOKE)["properties"]
    return Body(_object({**members, "FunctionName": {}, "Qualifier": {}}), required=True)


def _tagged() -> Body:
    tags = PARAMETERS["Tags"].shape
    if not isinstance(tags, MapOf):
        raise TypeError("Tags are a map")
    schema = {"type": "object", "properties": {"Tags": shape_schema(tags)}, "required": ["Tags"]}
    return Body(schema, examples={"tags": {"Tags": {"team": "billing"}}}, required=True)


def _object(properties: Mapping[str, Schema], *, required: tuple[str, ...] = ()) -> Schema:
    said = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return or_null({**said, "required": list(required)} if required else said)


def _without(schema: Schema, names: set[str]) -> Schema:
    return {**schema, "properties": {name: one for name, one in schema["properties"].items() if name not in names}}


def errors(*more: int, body: bool = True) -> dict[int, Answer]:
    """Return the answers that any operation of this API may have, and more of them by their status."""
    statuses = {401, *_AWAYS, *more} - (set() if body else {408, 413, 415})
    return {status: Answer(_ERRORS[status], Body(component("Error")), _TYPE) for status in sorted(statuses)}


def operations() -> Iterator[Operation]:
    """Yield all of them."""
    for name, where, parameters, request in _rows():
        model = lambda_model()
        output = model.output(name)
        body = None if output is None else Body(component(output))
        answers = {
            **errors(*(status for status in model.errors(name) if status in (404, 409, 412)), body=request is not None),
            model.success(name): Answer("It is done" if body is None else "What there is then", body, _REQUEST_ID),
        }
        if name == "PublishVersion":  # always refused: there is the latest version only
            del answers[model.success(name)]
        for number, one in enumerate(where.split()[1:]):
            yield Operation(
                method=where.split()[0],
                path=one,
                id=name + ("WithSlash" if number else ""),
                summary=_words(name),
                tag="Lambda API",
                parameters=parameters,
                request=request,
                answers=answers,
                source=f"{API_REFERENCE}{name}.html",
            )
    yield _invoke()


def shapes() -> list[str]:
    """Return the shapes that the answers refer to."""
    outputs = (lambda_model().output(name) for name, *_ in _rows())
    return sorted({output for output in outputs if output is not None})


def _rows() -> Iterator[tuple[str, str, tuple[Parameter, ...], Body | None]]:
    """Yield operations by AWS's name: the method and paths, the parameters, the request."""
    mappings, tags = "/2015-03-31/event-source-mappings", "/2017-03-31/tags/{arn}"
    functions, account = "/2015-03-31/functions", "/2016-08-19/account-settings"
    one, of = f"{mappings}/{{uuid}}", f"{functions}/{{function}}"
    concurrency = "/functions/{function}/concurrency"
    events = "/2019-09-25/functions/{function}/event-invoke-config"
    named = shape_schema(PARAMETERS["FunctionName"].shape)
    listed = (
        query("EventSourceArn", TEXT, "Mappings of this source"),
        query("FunctionName", {"anyOf": [named, {"const": ""}]}, "Mappings of this function"),
        _MARKER,
        _most(10_000, 100),
    )
    yield "CreateEventSourceMapping", f"POST {mappings} {mappings}/", (), _created()
    yield "ListEventSourceMappings", f"GET {mappings} {mappings}/", listed, None
    yield "GetEventSourceMapping", f"GET {one}", (_MAPPING,), None
    yield "UpdateEventSourceMapping", f"PUT {one}", (_MAPPING,), _updated()
    yield "DeleteEventSourceMapping", f"DELETE {one}", (_MAPPING,), None
    keys = {"type": "array", "items": TEXT, "minItems": 1}
    dropped = query("tagKeys", keys, "The names of the tags that are to go")
    yield "ListTags", f"GET {tags}", (_FUNCTION_ARN,), None
    yield "TagResource", f"POST {tags}", (_FUNCTION_ARN,), _tagged()
    yield "UntagResource", f"DELETE {tags}", (_FUNCTION_ARN, dropped), None
    created = _of_function(CREATE, required=True, examples=_function_examples())
    yield "CreateFunction", f"POST {functions} {functions}/", (), created
    yield "ListFunctions", f"GET {functions} {functions}/", (_MARKER, _most(10_000, 50)), None
    yield "GetFunction", f"GET {of}", (_FUNCTION, _QUALIFIER), None
    yield "DeleteFunction", f"DELETE {of}", (_FUNCTION, _QUALIFIER), None
    yield "GetFunctionConfiguration", f"GET {of}/configuration", (_FUNCTION, _QUALIFIER), None
    changed = _of_function(UPDATE_CONFIGURATION, required=False, function=True, examples={"slower": {"Timeout": 60}})
    yield "UpdateFunctionConfiguration", f"PUT {of}/configuration", (_FUNCTION,), changed
    code = _of_function(UPDATE_CODE, required=True, function=True, examples={"zip": {"ZipFile": _archive()}})
    yield "UpdateFunctionCode", f"PUT {of}/code", (_FUNCTION,), code
    yield "ListVersionsByFunction", f"GET {of}/versions", (_FUNCTION,), None
    yield "PublishVersion", f"POST {of}/versions", (_FUNCTION,), Body({"type": "object"})
    yield "PutFunctionConcurrency", f"PUT /2017-10-31{concurrency}", (_FUNCTION,), _concurrency()
    yield "DeleteFunctionConcurrency", f"DELETE /2017-10-31{concurrency}", (_FUNCTION,), None
    yield "GetFunctionConcurrency", f"GET /2019-09-30{concurrency}", (_FUNCTION,), None
    yield "GetAccountSettings", f"GET {account} {account}/", (), None
    version = (_FUNCTION, _QUALIFIER)
    yield "PutFunctionEventInvokeConfig", f"PUT {events}", version, _event_invoke()
    yield "UpdateFunctionEventInvokeConfig", f"POST {events}", version, _event_invoke()
    yield "GetFunctionEventInvokeConfig", f"GET {events}", version, None
    yield "DeleteFunctionEventInvokeConfig", f"DELETE {events}", version, None
    yield "ListFunctionEventInvokeConfigs", f"GET {events}/list", (_FUNCTION, _most(50, 50)), None


def _invoke() -> Operation:
    told = {
        "X-Amz-Function-Error": "`Unhandled` or `Handled` where the function failed",
        "X-Amz-Log-Result": "The end of its log, in base64, where it was asked for",
        "X-Amz-Executed-Version": "$LATEST",
        "X-Amzn-Trace-Id": "The trace it belongs to",
    }
    result = Body({"description": "What the function returned, or why it failed"})
    return Operation(
        method="POST",
        path="/2015-03-31/functions/{function}/invocations",
        id="Invoke",
        summary="Invoke a function, and wait for its result or not",
        tag="Lambda API",
        parameters=(
            _FUNCTION,
            query("Qualifier", {"type": "string", "maxLength": 128, "pattern": "^(|[a-zA-Z0-9$_-]+)$"}, "Its version"),
            header("X-Amz-Invocation-Type", {"enum": ["RequestResponse", "Event", "DryRun"]}, "Whether to wait"),
            header("X-Amz-Log-Type", {"enum": ["None", "Tail"]}, "`Tail`: with the end of its log"),
            header("X-Amz-Client-Context", TEXT, "A JSON object in base64, at most 3,583 characters"),
            header("X-Amzn-Trace-Id", TEXT, "The trace that it belongs to"),
        ),
        request=Body({"description": "The event; nothing is an empty object"}),
        answers={
            200: Answer("The function ran, whatever came of it", result, told),
            202: Answer("It is kept, and run later", None, _REQUEST_ID),
            204: Answer("It could be invoked", None, _REQUEST_ID),
            **errors(404, 502),
        },
        source=f"{API_REFERENCE}Invoke.html",
    )


def _words(name: str) -> str:
    """Return an operation's name as words."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip().capitalize()
