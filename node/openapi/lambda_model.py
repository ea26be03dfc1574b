"""The Lambda API's shapes, from the model that AWS's own SDK is made of: botocore's `lambda/2015-03-31/service-2`.

What answers hold is said here by that model, with its names, required members, lengths, ranges and enumerations. Where
esmd shows more, or what it was given, the table `_WIDER` says so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from node.openapi.operation import component

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from node.openapi.operation import Schema

API_REFERENCE = "https://docs.aws.amazon.com/lambda/latest/api/API_"

_WIDER: Mapping[str, str] = {
    "Arn": "sources of any Region, and none for Kafka of one's own",
    "URI": "a secret may be named by ${env:NAME} and ${file:PATH}",
    "DestinationArn": "kafka://TOPIC of any name",
    "Endpoint": "brokers with addresses of IPv6, and names without a dot",
    "FunctionArn": "functions behind URLs have names with dots",
    "NameSpacedFunctionArn": "the same",
    "NamespacedFunctionName": "the same",
    "FunctionName": "the same",
    "RoleArn": "shown as it was given, without effect",
    "Runtime": "what a file says, such as `nodejs` and `provided`",
    "Handler": "what a file says",
    "MemorySize": "what a file says",
    "KMSKeyArn": "shown as it was given, without effect",
}
"""Shapes whose pattern, lengths, range or enumeration does not hold of what esmd shows, and why."""

_OURS: Mapping[str, Mapping[str, Schema]] = {
    "EventSourceMappingConfiguration": {
        "Name": {"type": "string"},
        "schedule": {"type": "string"},
        "schedule_timezone": {"type": "string"},
        "missed": {"enum": ["once", "skip"]},
        "input": {},
        "extensions": {"type": "object"},
        "LoggingConfig": {"type": "object"},  # AWS's, and newer than some versions of its model
    },
}
"""Members that esmd adds to AWS's structures; AWS's clients ignore them."""


class LambdaModel:
    """botocore's model. Reading it takes a tenth of a second, so `lambda_model` keeps it."""

    def __init__(self) -> None:
        from botocore.loaders import Loader  # noqa: PLC0415 - not for whoever only wants `esmd --help`

        model = Loader().load_service_model("lambda", "service-2", "2015-03-31")
        self._shapes: Mapping[str, Any] = model["shapes"]
        self._operations: Mapping[str, Any] = model["operations"]

    def success(self, operation: str) -> int:
        """Return the status of an operation that succeeds."""
        return int(self._operations[operation]["http"]["responseCode"])

    def output(self, operation: str) -> str | None:
        """Return the shape of an operation's answer; None: it has no body."""
        output = self._operations[operation].get("output")
        return None if output is None else str(output["shape"])

    def errors(self, operation: str) -> dict[int, list[str]]:
        """Return the types of errors an operation may have, by status."""
        found: dict[int, list[str]] = {}
        for error in self._operations[operation]["errors"]:
            status = self._shapes[error["shape"]].get("error", {}).get("httpStatusCode", 400)
            found.setdefault(int(status), []).append(str(error["shape"]))
        return found

    def components(self, shapes: Iterable[str]) -> dict[str, Schema]:
        """Return the schemas of shapes, with those that they refer to."""
        found: dict[str, Schema] = {}
        waiting = list(shapes)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self._schema(name, waiting)
        return found

    def shape(self, name: str) -> Mapping[str, Any]:
        """Return a shape as botocore has it."""
        found: Mapping[str, Any] = self._shapes[name]
        return found

    def _schema(self, name: str, waiting: list[str]) -> Schema:
        shape = self._shapes[name]

        def refer(other: Mapping[str, Any]) -> Schema:
            waiting.append(other["shape"])
            return component(other["shape"])

        match shape["type"]:
            case "structure":
                members = {
                    str(member.get("locationName", key)): refer(member)
                    for key, member in shape["members"].items()
                    if "location" not in member
                }
                said: Schema = {
                    "type": "object",
                    "properties": {**members, **_OURS.get(name, {})},
                    "additionalProperties": False,
                }
                required = [key for key in shape.get("required", ()) if key in members]
                return {**said, "required": required} if required else said
            case "list":
                return {"type": "array", "items": refer(shape["member"]), **_bounds(name, shape, "Items")}
            case "map":
                entries = {"propertyNames": refer(shape["key"]), "additionalProperties": refer(shape["value"])}
                return {"type": "object", **entries, **_bounds(name, shape, "Properties")}
            case kind:
                return _plain(name, kind, shape)


def _plain(name: str, kind: str, shape: Mapping[str, Any]) -> Schema:
    match kind:
        case "integer" | "long":
            bounds = {} if name in _WIDER else {"minimum": shape.get("min"), "maximum": shape.get("max")}
            return {"type": "integer", **{key: value for key, value in bounds.items() if value is not None}}
        case "boolean":
            return {"type": "boolean"}
        case "timestamp" | "double":
            return {"type": "number"}
        case "string" | "blob":
            if name in _WIDER:
                return {"type": "string"}
            if "enum" in shape:
                return {"enum": list(shape["enum"])}
            pattern = {"pattern": f"^(?:{shape['pattern']})$"} if "pattern" in shape else {}
            return {"type": "string", **pattern, **_bounds(name, shape, "Length")}
        case _:
            raise ValueError(f"{name} is a {kind}, which no answer of this API had before")


def _bounds(name: str, shape: Mapping[str, Any], of: str) -> Schema:
    if name in _WIDER:
        return {}
    return {f"{end}{of}": shape[end] for end in ("min", "max") if end in shape}


@lru_cache(maxsize=1)
def lambda_model() -> LambdaModel:
    """Return the model, read once."""
    return LambdaModel()
