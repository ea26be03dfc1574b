"""`esmd export`: write mappings for other tools."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export")
@click.argument("files", metavar="CONFIG…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--cloudformation", is_flag=True, required=True, help="As a CloudFormation template.")
def export_command(files: tuple[Path, ...], *, cloudformation: bool) -> None:
    """Write the event source mappings of configuration files on standard output.

    The template is a CONFIG again: `esmd validate`, `plan` and `run` take it for the same mappings.
    """
    from config.load import load  # noqa: PLC0415 - not for `esmd --help`
    from config.to_cloudformation import foreign_secrets, schedules, template, without_function  # noqa: PLC0415 - same

    del cloudformation  # the only form there is
    settings = load(files)
    click.echo(template(settings), nl=False)
    for name in schedules(settings):
        click.echo(
            f"esmd: {name} is a schedule, and left out: in AWS, EventBridge calls functions by schedules", err=True
        )
    for name in foreign_secrets(settings):
        click.echo(f"esmd: {name} names secrets as esmd alone does: Lambda takes ARNs of Secrets Manager", err=True)
    for name in without_function(settings):
        click.echo(f"esmd: function {name} is none of Lambda's: CloudFormation needs one of that name", err=True)
