"""What is said of one operation of the HTTP surface, and how OpenAPI 3.1 writes it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = "application/json"
ANY = 0
"""Stands for every status that is not named."""

Schema = dict[str, Any]
"""A JSON Schema of draft 2020-12, as OpenAPI 3.1 has them."""

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a path, a query or the headers."""

    name: str
    where: str  # path, query, header
    schema: Schema
    about: str
    required: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as OpenAPI writes it."""
        said = {"name": self.name, "in": self.where, "description": self.about, "schema": self.schema}
        required = self.required or self.where == "path"
        return {**said, "required": True} if required else said


@dataclass(frozen=True, slots=True)
class Body:
    """What a request or an answer carries. `examples` are whole documents by what they show."""

    schema: Schema
    kind: str = JSON
    examples: Mapping[str, object] = field(default_factory=dict)
    required: bool = False  # of a request

    def document(self) -> dict[str, Any]:
        """Return its content as OpenAPI writes it."""
        content: dict[str, Any] = {"schema": self.schema}
        if self.examples:
            content["examples"] = {name: {"value": value} for name, value in self.examples.items()}
        return {self.kind: content}


@dataclass(frozen=True, slots=True)
class Answer:
    """One status, and what comes with it. No body: there is none, or it may be anything (`anything`)."""

    about: str
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # what they say, by name
    anything: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as OpenAPI writes it."""
        said: dict[str, Any] = {"description": self.about}
        if self.body is not None:
            said["content"] = self.body.document()
        elif self.anything:
            said["content"] = {"*/*": {}}
        if self.headers:
            said["headers"] = {name: {"description": what, "schema": TEXT} for name, what in self.headers.items()}
        return said


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `open_`: nobody has to prove who he is. `id` is unique in the document."""

    method: str
    path: str
    id: str
    summary: str
    tag: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    request: Body | None = None
    open_: bool = False
    source: str = ""  # where what is described is described too

    @property
    def key(self) -> tuple[str, str]:
        """What it is found by."""
        return self.method, self.path

    def document(self) -> dict[str, Any]:
        """Return it as OpenAPI writes it."""
        said: dict[str, Any] = {"operationId": self.id, "summary": self.summary, "tags": [self.tag]}
        if self.source:
            said["externalDocs"] = {"url": self.source}
        if self.parameters:
            said["parameters"] = [parameter.document() for parameter in self.parameters]
        if self.request is not None:
            said["requestBody"] = {"content": self.request.document(), "required": self.request.required}
        if self.open_:
            said["security"] = []
        said["responses"] = {
            "default" if status == ANY else str(status): answer.document()
            for status, answer in sorted(self.answers.items())
        }
        return said


def path(name: str, schema: Schema, about: str) -> Parameter:
    """Return a parameter of a path."""
    return Parameter(name, "path", schema, about)


def query(name: str, schema: Schema, about: str) -> Parameter:
    """Return a parameter of a query, which may be left out."""
    return Parameter(name, "query", schema, about)


def header(name: str, schema: Schema, about: str) -> Parameter:
    """Return a header, which may be left out."""
    return Parameter(name, "header", schema, about)


def component(name: str, kind: str = "schemas") -> Schema:
    """Return a reference to a schema, or another component, of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


def or_null(schema: Schema) -> Schema:
    """Return a schema in which null stands for what is not given: members of requests count as absent then."""
    said = dict(schema)
    if "properties" in said:
        required = said.get("required", ())
        said["properties"] = {
            name: or_null(member)
            if name in required or member is False
            else {"anyOf": [or_null(member), {"type": "null"}]}
            for name, member in said["properties"].items()
        }
    if isinstance(said.get("items"), dict):
        said["items"] = or_null(said["items"])
    return said
