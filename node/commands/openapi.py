"""`esmd openapi`: the OpenAPI document of what nodes serve over HTTP."""

from __future__ import annotations

import json

import click


@click.command("openapi")
def openapi_command() -> None:
    """Print the OpenAPI 3.1 document of what nodes serve over HTTP.

    A node serves its own, of what it has, at /esmd/v1/openapi.json.
    """
    from node.openapi.document import document  # noqa: PLC0415 - not for `esmd --help`

    click.echo(json.dumps(document(), indent=2))
