"""The JSON Schema of configuration files, for editors: made from the tables that the validator itself uses.

Rules that join fields are the validator's alone, except which parameters belong to which source.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, assert_never

from config.functions import FUNCTION_NAME, KINDS
from config.sections import SECTIONS
from model.rules.parameters import EXTENSION_PARAMETERS, PARAMETERS, Source, extensions_shape
from model.rules.shapes import Boolean, Choice, Either, Integer, Json, ListOf, MapOf, Number, Table, Text, Timestamp

if TYPE_CHECKING:
    from model.rules.shapes import Shape

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAMED_GROUP = re.compile(r"\(\?P<\w+>")
_ARNS = {
    Source.KINESIS: "^arn:[^:]*:kinesis:",
    Source.SQS: "^arn:[^:]*:sqs:.*(?<!\\.fifo)$",
    Source.FIFO: "^arn:[^:]*:sqs:.*\\.fifo$",
    Source.MSK: "^arn:[^:]*:kafka:",
}


SOURCES = ("EventSourceArn", "SelfManagedEventSource", "schedule")
"""What a mapping names its source by: one of these."""


def json_schema() -> dict[str, Any]:
    """Return the schema of a configuration file."""
    properties: dict[str, Any] = {name: _described(shape_schema(f.shape), f.about) for name, f in SECTIONS.items()}
    properties["functions"] = {
        "type": "object",
        "description": "Functions by name",
        "propertyNames": shape_schema(FUNCTION_NAME),
        "additionalProperties": {"oneOf": [shape_schema(table) for table in KINDS.values()]},
    }
    properties["event_source_mappings"] = {"type": "array", "items": _mapping()}
    return {
        "$schema": _DIALECT,
        "title": "esmd configuration",
        "type": "object",
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def shape_schema(shape: Shape) -> dict[str, Any]:  # noqa: C901, PLR0911 - one case per shape
    """Return the schema of a shape."""
    match shape:
        case Text():
            return _text(shape)
        case Integer():
            within = {"type": "integer", "minimum": shape.minimum, "maximum": shape.maximum}
            return {"anyOf": [within, {"enum": list(shape.also)}]} if shape.also else within
        case Number():
            return {"type": "number", "minimum": shape.minimum, "maximum": shape.maximum}
        case Boolean():
            return {"type": "boolean"}
        case Choice():
            return {"enum": list(shape.values)}
        case Timestamp():
            return {"type": ["number", "string"]}
        case ListOf():
            return _list(shape)
        case MapOf():
            entries = shape_schema(shape.value)
            keys = shape_schema(shape.key)
            schema = {"type": "object", "propertyNames": keys, "additionalProperties": entries}
            return schema if shape.max_items is None else {**schema, "maxProperties": shape.max_items}
        case Table():
            return _table(shape)
        case Json():
            return {"not": {"type": "null"}}
        case Either():
            return {"anyOf": [{"const": shape.word}, shape_schema(shape.shape)]}
        case _:
            assert_never(shape)


def _text(shape: Text) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if shape.min_length:
        schema["minLength"] = shape.min_length
    if shape.max_length is not None:
        schema["maxLength"] = shape.max_length
    if shape.pattern is not None:
        # JSON Schema's regular expressions are JavaScript's, which names groups differently.
        schema["pattern"] = f"^(?:{_NAMED_GROUP.sub('(', shape.pattern.pattern)})$"
    return schema


def _list(shape: ListOf) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array", "items": shape_schema(shape.item)}
    if shape.min_items:
        schema["minItems"] = shape.min_items
    if shape.max_items is not None:
        schema["maxItems"] = shape.max_items
    if shape.unique:
        schema["uniqueItems"] = True
    return schema


def _table(shape: Table) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {f.name: _described(shape_schema(f.shape), f.about) for f in shape.fields},
        "additionalProperties": False,
    }
    required = [f.name for f in shape.fields if f.required]
    return {**schema, "required": required} if required else schema


def mapping_parameters() -> dict[str, Any]:
    """Return the schemas of a mapping's parameters, in AWS's and in CloudFormation's spelling, whatever its source."""
    properties: dict[str, Any] = {
        name: _described(shape_schema(row.shape), row.about) for name, row in PARAMETERS.items() if row.sources
    }
    properties["extensions"] = _described(shape_schema(extensions_shape(None)), PARAMETERS["extensions"].about)
    # CloudFormation's spellings of the same.
    properties["KmsKeyArn"] = properties["KMSKeyArn"]
    pairs = {"Key": {"type": "string"}, "Value": {"type": "string"}}
    listed = {"type": "object", "properties": pairs, "required": ["Key", "Value"], "additionalProperties": False}
    properties["Tags"] = {"anyOf": [properties["Tags"], {"type": "array", "items": listed}]}
    endpoints = properties["SelfManagedEventSource"]["properties"]["Endpoints"]
    servers = endpoints["properties"]["KAFKA_BOOTSTRAP_SERVERS"]
    endpoints["properties"]["KafkaBootstrapServers"] = servers
    del endpoints["required"]
    endpoints["minProperties"] = 1
    return properties


def _mapping() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": mapping_parameters(),
        "additionalProperties": False,
        "required": ["Name", "FunctionName"],
        "oneOf": [{"required": [one]} for one in SOURCES],
        "allOf": [_of_source(source) for source in Source],
    }


def _of_source(source: Source) -> dict[str, Any]:
    """Return what holds for the mappings of one kind of source beyond what holds for all."""
    arn = _ARNS.get(source)
    if arn is None:
        named = "schedule" if source is Source.SCHEDULE else "SelfManagedEventSource"
        condition: dict[str, Any] = {"required": [named]}
    else:
        is_it = {"EventSourceArn": {"type": "string", "pattern": arn}}
        condition = {"required": ["EventSourceArn"], "properties": is_it}
    properties: dict[str, Any] = {}
    for name, row in PARAMETERS.items():
        if row.sources and source not in row.sources:
            properties[name] = False
        elif source in row.special:
            properties[name] = shape_schema(row.special[source])
    foreign = {name: False for name, row in EXTENSION_PARAMETERS.items() if source not in row.sources}
    properties["extensions"] = {"type": "object", "properties": foreign}
    required = [name for name, row in PARAMETERS.items() if source in row.required and name != "FunctionName"]
    return {"if": condition, "then": {"properties": properties, "required": required}}


def _described(schema: dict[str, Any], about: str) -> dict[str, Any]:
    return {**schema, "description": about} if about else schema
