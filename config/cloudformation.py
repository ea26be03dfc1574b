"""Take event source mappings out of a CloudFormation or SAM template.

Every `AWS::Lambda::EventSourceMapping` and every event of a SAM function that is one becomes a document with AWS's
property names; its logical id becomes the Name. Everything else in the template is somebody else's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from config.intrinsics import Intrinsics, UnresolvedError
from config.to_cloudformation import METADATA, OURS
from model.problem import Problem, child_path
from model.rules.parameters import PARAMETERS
from model.rules.shapes import Boolean, Integer, ListOf, Table
from model.rules.wording import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from config.settings import AwsSettings
    from model.rules.shapes import Shape

_ESM = "AWS::Lambda::EventSourceMapping"
_SAM_FUNCTION = "AWS::Serverless::Function"
_SAM_SOURCES = {"Kinesis": "Stream", "SQS": "Queue", "MSK": "Stream", "SelfManagedKafka": ""}
_SAM_FOREIGN = ("DynamoDB", "MQ", "DocumentDB")
_CLOUDFORMATION_KEYS = ("AWSTemplateFormatVersion", "Transform", "Resources")
_NUMBER = re.compile(r"-?\d{1,12}")


@dataclass(frozen=True, slots=True)
class TemplateMapping:
    """A mapping found in a template; `path` is where its properties stand."""

    document: dict[str, object]
    path: str


def is_template(value: object) -> bool:
    """Whether a file is a CloudFormation or SAM template rather than a configuration of ours."""
    return isinstance(value, dict) and any(key in value for key in _CLOUDFORMATION_KEYS)


def read_template(value: object, aws: AwsSettings) -> tuple[list[TemplateMapping], list[Problem]]:
    """Return the mappings of a template, and what is wrong with it; a mapping with a problem is left out."""
    if not isinstance(value, dict):
        return [], []
    resources = value.get("Resources")
    if not isinstance(resources, dict):
        return [], [Problem("Resources", f"must be a mapping of resources, not {kind_of(resources)}")]
    reading = _Reading(value, aws)
    for logical_id, resource in resources.items():
        if not isinstance(resource, dict):
            continue
        path = child_path(child_path("Resources", logical_id), "Properties")
        properties = resource.get("Properties")
        if resource.get("Type") == _ESM and reading.deployed(resource, path):
            reading.mapping(logical_id, properties, path, ours=_ours(resource))
        elif resource.get("Type") == _SAM_FUNCTION and reading.deployed(resource, path):
            reading.sam_function(logical_id, properties, path)
    return reading.found, reading.problems


class _Reading:
    """One template being read."""

    def __init__(self, template: Mapping[str, Any], aws: AwsSettings) -> None:
        self.found: list[TemplateMapping] = []
        self.problems: list[Problem] = []
        self._intrinsics = Intrinsics(template, aws)

    def deployed(self, resource: Mapping[str, Any], path: str) -> bool:
        """Whether the resource's condition holds."""
        condition = resource.get("Condition")
        if condition is None:
            return True
        return self._intrinsics.resolve({"Condition": condition}, path, self.problems) is True

    def mapping(self, logical_id: str, properties: object, path: str, *, ours: Mapping[str, object]) -> None:
        """Take up a resource's properties as they are, and `ours` over them."""
        before = len(self.problems)
        document = self._intrinsics.resolve(properties, path, self.problems)
        if len(self.problems) > before:
            return
        if not isinstance(document, dict):
            self.problems.append(Problem(path, f"must be a mapping, not {kind_of(properties)}"))
            return
        document.update(ours)
        self._take(logical_id, document, path)

    def sam_function(self, logical_id: str, properties: object, path: str) -> None:
        """Take up the events of a SAM function that are event source mappings."""
        events = properties.get("Events") if isinstance(properties, dict) else None
        if not isinstance(properties, dict) or not isinstance(events, dict):
            return
        for event_id, event in events.items():
            kind = event.get("Type") if isinstance(event, dict) else None
            at = child_path(child_path(path, "Events"), event_id)
            if kind in _SAM_FOREIGN:
                rule = f"Unrecognized event source. {kind} is no source of esmd: it reads Kinesis, SQS, MSK and Kafka"
                self.problems.append(Problem(child_path(at, "Type"), rule))
            elif kind in _SAM_SOURCES and self.deployed(event, at):
                self._sam_event(logical_id, f"{logical_id}{event_id}", event, at)

    def _sam_event(self, function_id: str, name: str, event: Mapping[str, Any], at: str) -> None:
        below = child_path(at, "Properties")
        before = len(self.problems)
        given = self._intrinsics.resolve(event.get("Properties"), below, self.problems)
        function_name = self._function_name(function_id, at)
        if len(self.problems) > before:
            return
        if not isinstance(given, dict):
            self.problems.append(Problem(below, f"must be a mapping, not {kind_of(given)}"))
            return
        self._take(name, {**_without_sam_spelling(given, str(event["Type"])), "FunctionName": function_name}, below)

    def _function_name(self, logical_id: str, at: str) -> object:
        try:
            name, alias = self._intrinsics.name_of(logical_id), self._intrinsics.alias_of(logical_id)
        except UnresolvedError as exc:
            self.problems.append(Problem(at, str(exc)))
            return None
        return name if alias is None else f"{name}:{alias}"

    def _take(self, name: str, document: dict[str, object], path: str) -> None:
        document.setdefault("Name", name)
        for key, value in document.items():
            if key in PARAMETERS:
                document[key] = _typed(PARAMETERS[key].shape, value)
        self.found.append(TemplateMapping(document, path))


def _ours(resource: Mapping[str, Any]) -> dict[str, object]:
    """Return what `esmd export` has put into a resource's Metadata: what CloudFormation has no properties for."""
    metadata = resource.get("Metadata")
    ours = metadata.get(METADATA) if isinstance(metadata, dict) else None
    return {key: ours[key] for key in (*OURS, "FunctionName") if key in ours} if isinstance(ours, dict) else {}


def _without_sam_spelling(given: dict[str, Any], kind: str) -> dict[str, object]:
    """Return an event's properties as those of an event source mapping."""
    document: dict[str, Any] = dict(given)
    source = _SAM_SOURCES[kind]
    if source and source in document:
        document["EventSourceArn"] = document.pop(source)
    if "KafkaBootstrapServers" in document:
        servers = document.pop("KafkaBootstrapServers")
        document["SelfManagedEventSource"] = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": servers}}
    config = "AmazonManagedKafkaEventSourceConfig" if kind == "MSK" else "SelfManagedKafkaEventSourceConfig"
    registry = {key: document.pop(key) for key in ("ConsumerGroupId", "SchemaRegistryConfig") if key in document}
    if registry:
        document[config] = registry
    document.pop("SecretsManagerKmsKeyId", None)  # for the permissions that SAM writes
    destination = document.get("DestinationConfig")
    if isinstance(destination, dict) and isinstance(destination.get("OnFailure"), dict):
        # SAM's own hint at the kind of destination, needed only for the permissions it writes.
        on_failure = {key: item for key, item in destination["OnFailure"].items() if key != "Type"}
        document["DestinationConfig"] = {**destination, "OnFailure": on_failure}
    return document


def _typed(shape: Shape, value: object) -> object:
    """Read numbers and truth values that parameters gave as text."""
    match shape:
        case Integer() if isinstance(value, str) and _NUMBER.fullmatch(value):
            return int(value)
        case Boolean() if value in ("true", "false"):
            return value == "true"
        case ListOf() if isinstance(value, list):
            return [_typed(shape.item, item) for item in value]
        case Table() if isinstance(value, dict):
            return {
                key: _typed(shape.by_name[key].shape, item) if key in shape.by_name else item
                for key, item in value.items()
            }
        case _:
            return value
