"""`esmd schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json

import click

from config.schema import json_schema


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of configuration files.

    With the YAML extension of most editors:  # yaml-language-server: $schema=esmd.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2))
