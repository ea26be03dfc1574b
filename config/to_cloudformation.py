"""Write mappings as a CloudFormation template, which `config.cloudformation` reads back as the same mappings. Pure.

What is AWS's goes into Properties; what is ours, so that it is not lost, under `esmd` into the resource's Metadata,
which CloudFormation ignores.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from invocation.settings import LambdaFunction
from model.mapping import KafkaSource, SourceKind
from model.mapping_rules import canonical_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from config.settings import ConfiguredMapping, Settings
    from invocation.settings import FunctionSettings

METADATA = "esmd"
OURS = ("Name", "UUID", "extensions")
_NOT_ID = re.compile(r"[^A-Za-z0-9]+")


def template(settings: Settings) -> str:
    """Return the template of a configuration's mappings."""
    resources: dict[str, Any] = {}
    for configured in settings.event_source_mappings:
        if configured.mapping.source.kind is SourceKind.SCHEDULE:
            continue
        resources[_logical_id(configured.mapping.name, resources)] = _resource(configured, settings)
    document = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Event source mappings, written by esmd export",
        "Resources": resources,
    }
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=100, allow_unicode=True)


def schedules(settings: Settings) -> list[str]:
    """Return the mappings that no template has: to Lambda a schedule is no event source mapping."""
    mappings = settings.event_source_mappings
    return [one.mapping.name for one in mappings if one.mapping.source.kind is SourceKind.SCHEDULE]


def without_function(settings: Settings) -> list[str]:
    """Return the functions that mappings name and that Lambda does not have: they have to be made there first."""
    names = {one.mapping.function_name for one in settings.event_source_mappings}
    return sorted(
        name for name in names if (listed := settings.listed_function(name)) is not None and not _is_of_lambda(listed)
    )


def foreign_secrets(settings: Settings) -> list[str]:
    """Return the mappings that name secrets by references of ours (`${file:…}`): Lambda takes ARNs alone."""
    found = []
    for configured in settings.event_source_mappings:
        source = configured.mapping.source
        if isinstance(source, KafkaSource) and any("${" in one.uri for one in source.access):
            found.append(configured.mapping.name)
    return found


def _is_of_lambda(function: FunctionSettings) -> bool:
    return isinstance(function, LambdaFunction) and function.endpoint is None


def _resource(configured: ConfiguredMapping, settings: Settings) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(canonical_document(configured.document))
    ours = {key: document.pop(key) for key in OURS if key in document}
    ours["Name"] = configured.mapping.name
    function = settings.listed_function(str(document.get("FunctionName")))
    if isinstance(function, LambdaFunction) and _is_of_lambda(function):
        ours["FunctionName"] = document["FunctionName"]
        document["FunctionName"] = function.function
    return {
        "Type": "AWS::Lambda::EventSourceMapping",
        "Metadata": {METADATA: ours},
        "Properties": _cloudformation_spelling(document),
    }


def _cloudformation_spelling(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as CloudFormation spells them."""
    given = dict(document)
    if "KMSKeyArn" in given:
        given["KmsKeyArn"] = given.pop("KMSKeyArn")
    if isinstance(given.get("Tags"), dict):
        given["Tags"] = [{"Key": key, "Value": value} for key, value in given["Tags"].items()]
    endpoints = given.get("SelfManagedEventSource", {}).get("Endpoints", {})
    if "KAFKA_BOOTSTRAP_SERVERS" in endpoints:
        servers = endpoints["KAFKA_BOOTSTRAP_SERVERS"]
        given["SelfManagedEventSource"] = {"Endpoints": {"KafkaBootstrapServers": servers}}
    return given


def _logical_id(name: str, taken: Mapping[str, object]) -> str:
    """Return letters and digits that are nobody else's."""
    words = [word for word in _NOT_ID.split(name) if word]
    base = ("".join(word[0].upper() + word[1:] for word in words) or "Mapping")[:240]
    number, fresh = 2, base
    while fresh in taken:
        fresh, number = f"{base}{number}", number + 1
    return fresh
