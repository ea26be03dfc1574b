"""The OpenAPI document: it is one, and it describes what is served, in the words of what judges requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from node.commands.openapi import openapi_command
from node.console_api import ConsoleApi
from node.openapi.document import document, operations, served, undescribed
from node.openapi.lambda_model import lambda_model
from tests.support.whole_surface import whole_surface

NONE: Any = None
MAPPINGS = "/2015-03-31/event-source-mappings"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Return the document of everything."""
    return document()


async def test_every_route_is_described_and_every_description_is_of_a_route() -> None:
    """Whoever adds a path, or takes one away, says so in the document."""
    there = served(whole_surface().router.routes())
    assert undescribed(there) == []
    assert {one.key for one in operations()} - there == set()


def test_it_is_a_document_of_openapi(whole: dict[str, Any]) -> None:
    """By the specification's own schema and rules; operations have ids of their own."""
    assert [error.message for error in OpenAPIV31SpecValidator(whole).iter_errors()] == []
    ids = [one.id for one in operations()]
    assert len(ids) == len(set(ids))


def test_examples_fit_what_they_are_examples_of(whole: dict[str, Any]) -> None:
    """Each one that is shown may be sent as it is."""
    looked_at = 0
    for methods in whole["paths"].values():
        for said in methods.values():
            for content in said.get("requestBody", {}).get("content", {}).values():
                for example in content.get("examples", {}).values():
                    schema = {**content["schema"], "components": whole["components"]}
                    Draft202012Validator(schema).validate(example["value"])
                    looked_at += 1
    assert looked_at > 10


def test_a_node_without_credentials_asks_for_none() -> None:
    """Its document does not speak of any, and tells only of what was wanted."""
    said = document({("GET", "/healthz")}, guarded=False)
    assert list(said["paths"]) == ["/healthz"]
    assert "security" not in json.dumps(said)
    assert said["tags"][0]["name"] == "Health"


def test_probes_and_the_page_are_open_and_nothing_else(whole: dict[str, Any]) -> None:
    """What needs no credentials is what `node.guard` lets through without them."""
    said = [(path, one) for path, methods in whole["paths"].items() for one in methods.values()]
    open_ = {path for path, one in said if one.get("security") == []}
    assert open_ == {"/healthz", "/readyz"} | set(ConsoleApi(NONE).public_paths)


@pytest.mark.parametrize("operation", ["CreateEventSourceMapping", "UpdateEventSourceMapping"])
def test_mapping_requests_are_those_of_aws(whole: dict[str, Any], operation: str) -> None:
    """Every parameter of ours that AWS has, has AWS's kind, range and words; what AWS has besides is told."""
    path, method = (MAPPINGS, "post") if operation.startswith("Create") else (MAPPINGS + "/{uuid}", "put")
    ours = whole["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    aws = lambda_model().shape(f"{operation}Request")["members"]
    assert set(aws) - set(ours) - {"UUID"} == {"Queues", "DocumentDBEventSourceConfig"} & set(aws)
    compared = 0
    for name in set(aws) & set(ours):
        shape, schema = lambda_model().shape(aws[name]["shape"]), ours[name]
        said = schema["anyOf"][0] if "anyOf" in schema and "type" not in schema else schema
        if shape["type"] == "integer":
            wide = said.get("anyOf", [said])[0]
            assert (shape["max"], wide["type"]) == (wide["maximum"], "integer"), name
            compared += 1
        elif "enum" in shape and "enum" in said:
            assert set(shape["enum"]) >= set(said["enum"]), name
            compared += 1
        elif shape["type"] == "boolean":
            assert said["type"] == "boolean"
            compared += 1
    assert compared >= (8 if operation.startswith("Create") else 7)


def test_answers_of_aws_have_the_status_that_aws_gives(whole: dict[str, Any]) -> None:
    """Each operation has its success and, besides our own, every error that AWS tells of with a status we use."""
    model = lambda_model()
    for one in operations():
        if one.tag != "Lambda API" or one.id in {"Invoke", "PublishVersion"}:
            continue
        name = one.id.removesuffix("WithSlash")
        assert model.success(name) in one.answers, name
        assert set(model.errors(name)) <= set(one.answers), name


def test_the_command_prints_it(whole: dict[str, Any]) -> None:
    """`esmd openapi` tells of everything, whatever any node serves."""
    result = CliRunner().invoke(openapi_command)
    assert result.exit_code == 0
    assert json.loads(result.output) == json.loads(json.dumps(whole))
