"""The OpenAPI 3.1 document, of all operations or of those that a node serves. Pure, but for reading AWS's model."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs

from node.openapi import lambda_operations, own_operations
from node.openapi.lambda_model import lambda_model
from node.openapi.operation import component

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from aiohttp import web

    from node.openapi.operation import Operation

VERSION = "3.1.0"

_ABOUT = """\
What a node of the event source mapping daemon serves: the part of AWS Lambda's API that it has, for AWS's own clients,
and paths of its own. Requests are described by the rules that judge them; rules that join members, such as which
parameters belong to which source, are in the documentation of the configuration. Errors of AWS's operations have AWS's
types in `x-amzn-ErrorType`.
"""
_TAGS = {
    "Lambda API": "Event source mappings, tags, functions, concurrency, asynchronous invocation, Invoke",
    "Function URLs": "Functions that are called like web servers",
    "Mappings": "What esmd does for a mapping beyond AWS's API",
    "Health": "Probes, metrics, status",
    "Console": "The web page, and what it shows",
    "Fleet": "Between nodes",
}
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of `auth.tokens` or `auth.read_only_tokens`"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "AWS's Signature Version 4, for the service `lambda`, with a key of `auth.access_keys`",
    },
}


def operations() -> tuple[Operation, ...]:
    """Return every operation there is a description of."""
    return (*own_operations.operations(), *lambda_operations.operations())


def document(wanted: Collection[tuple[str, str]] | None = None, *, guarded: bool = True) -> dict[str, Any]:
    """Return the document of the operations with these methods and paths, or of all.

    `guarded`: callers have to prove who they are, as with `auth`.
    """
    told = [one for one in operations() if wanted is None or one.key in wanted]
    paths: dict[str, dict[str, Any]] = {}
    shared = {f"Error{status}": answer.document() for status, answer in lambda_operations.errors().items()}
    names = {str(said): component(name, "responses") for name, said in shared.items()}
    for one in told:
        said = one.document()
        said["responses"] = {status: names.get(str(answer), answer) for status, answer in said["responses"].items()}
        if not guarded:
            said.pop("security", None)
        paths.setdefault(one.path, {})[one.method.lower()] = said
    tags = {one.tag for one in told}
    schemas = {**lambda_model().components(lambda_operations.shapes()), **own_operations.schemas()}
    found: dict[str, Any] = {
        "openapi": VERSION,
        "info": {"title": "esmd", "version": version("esmd"), "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items() if name in tags],
        "paths": paths,
        "components": {"schemas": schemas, "responses": shared},
    }
    if guarded:
        found["components"]["securitySchemes"] = _SCHEMES
        found["security"] = [{name: []} for name in _SCHEMES]
    return found


def served(routes: Iterable[web.AbstractRoute]) -> frozenset[tuple[str, str]]:
    """Return methods and paths of an application's routes, as the document writes them.

    A route for any method stands for all of them. A HEAD that comes with its GET is not told.
    """
    found: set[tuple[str, str]] = set()
    for route in routes:
        if route.resource is None:
            continue  # nothing is there
        where = route.resource.canonical
        if route.method == hdrs.METH_ANY:
            found |= {(method, where) for method in own_operations.ANY_METHOD}
        elif route.method != hdrs.METH_HEAD:
            found.add((route.method, where))
    return frozenset(found)


def undescribed(wanted: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what is served and in no description: there is none, or a defect."""
    return sorted(set(wanted) - {one.key for one in operations()})
