"""`esmd import`: read mappings from elsewhere into a configuration file."""

# ruff: noqa: N999 - a module is called as its command is

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.command("import")
@click.option("--from-aws", is_flag=True, required=True, help="From AWS Lambda, with the SDK's own credentials.")
@click.option("--region", help="Of these mappings.  [the SDK's]")
@click.option("--function", "function_name", metavar="FUNCTION", help="Only those of this function.")
def import_command(*, from_aws: bool, region: str | None, function_name: str | None) -> None:
    """Read event source mappings and write them as YAML on standard output.

    `esmd validate` accepts what is written. What cannot be carried over is told in comments. Nothing is changed in AWS.
    """
    from config.from_aws import configuration  # noqa: PLC0415 - not for `esmd --help`

    del from_aws  # the only place there is
    listed, tags, region = _read(region, function_name)
    click.echo(configuration(listed, region=region, tags=tags), nl=False)
    click.echo(f"esmd: {len(listed):,} event source mapping{'' if len(listed) == 1 else 's'} in {region}", err=True)


def _read(
    region: str | None, function_name: str | None
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]] | None, str]:
    """Read all pages, and the mappings' tags; None without the permission for these.

    Raises `UnavailableError` when AWS does not answer, `RefusedError` for what someone must see to.
    """
    from botocore import exceptions  # noqa: PLC0415 - takes half a second
    from botocore.session import Session  # noqa: PLC0415 - same

    from model.errors import RefusedError, UnavailableError  # noqa: PLC0415 - same

    try:
        session = Session()
        region = region or session.get_config_variable("region")
        client = session.create_client("lambda", region_name=region)
        only = {} if function_name is None else {"FunctionName": function_name}
        pages = client.get_paginator("list_event_source_mappings").paginate(**only)
        listed = [one for page in pages for one in page["EventSourceMappings"]]
        return listed, _tags(client, listed), client.meta.region_name
    except exceptions.ClientError as error:
        raise RefusedError(f"AWS Lambda: {error}") from error
    except (exceptions.NoCredentialsError, exceptions.NoRegionError, exceptions.PartialCredentialsError) as error:
        raise RefusedError(f"AWS Lambda: {error}") from error
    except (exceptions.BotoCoreError, OSError) as error:
        raise UnavailableError(f"AWS Lambda: {error}") from error


_DENIED = {"AccessDeniedException", "AccessDenied"}


def _tags(client: Any, listed: Iterable[dict[str, Any]]) -> dict[str, dict[str, str]] | None:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - takes half a second

    tags = {}
    for one in listed:
        arn = one.get("EventSourceMappingArn")
        if arn is None:
            return None
        try:
            tags[arn] = client.list_tags(Resource=arn).get("Tags", {})
        except ClientError as error:
            if error.response["Error"]["Code"] not in _DENIED:
                raise
            return None
    return tags
