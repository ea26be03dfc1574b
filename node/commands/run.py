"""`esmd run`: start a node, or several processes of it, and stay until told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from model.lease import Role
    from node.options import ListenAddress


def _roles(_ctx: click.Context, _param: click.Parameter, value: str | None) -> frozenset[Role] | None:
    from node.options import parse_roles  # noqa: PLC0415 - loaded only when the command runs

    try:
        return None if value is None else parse_roles(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _zone(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    from node.options import parse_zone  # noqa: PLC0415 - loaded only when the command runs

    try:
        return parse_zone(value) if value else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _listen(_ctx: click.Context, _param: click.Parameter, value: str | None) -> ListenAddress | None:
    from node.options import ListenAddress  # noqa: PLC0415 - loaded only when the command runs

    try:
        return None if value is None else ListenAddress.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("run")
@click.argument("config", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--redis", envvar="ESMD_RUN_REDIS", metavar="URL", help="The Redis the fleet shares.")
@click.option("--listen", callback=_listen, metavar="HOST:PORT", help="API, metrics and console.  [127.0.0.1:9001]")
@click.option("--role", "roles", callback=_roles, metavar="ROLE,…", help="What this node does.  [all roles]")
@click.option(
    "--zone", callback=_zone, envvar="ESMD_ZONE", metavar="LABEL", help="What may fail together with this node."
)
@click.option("--processes", type=click.IntRange(1, 256), default=1, metavar="N", help="Node processes.  [1]")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Where the node keeps files.")
@click.option("--drain-timeout", type=click.FloatRange(min=0), metavar="S", help="Longest drain, in seconds.  [30]")
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
@click.option("--process-index", type=click.IntRange(min=0), hidden=True, help="Set by a parent for its children.")
@click.option("--process-count", type=click.IntRange(min=1), default=1, hidden=True, help="The same.")
@click.pass_context
def run_command(
    ctx: click.Context,
    config: tuple[Path, ...],
    *,
    redis: str | None,
    listen: ListenAddress | None,
    roles: frozenset[Role] | None,
    zone: str | None,
    processes: int,
    data_dir: Path | None,
    drain_timeout: float | None,
    log_format: str,
    process_index: int | None,
    process_count: int,
) -> int:
    """Run a node with the event source mappings of CONFIG.

    Several nodes on one Redis are a fleet and share the work. The first SIGTERM or Ctrl-C stops reading, delivers what
    is in flight and hands over; a second stops at once. SIGHUP reads CONFIG again.
    """
    from node import logs  # noqa: PLC0415 - a node's parts are loaded when one runs, not for `esmd --help`
    from node.daemon import run_daemon  # noqa: PLC0415 - same
    from node.options import Overrides  # noqa: PLC0415 - same

    debug = bool((ctx.find_root().obj or {}).get("debug"))
    logs.configure(log_format, debug=debug)
    overrides = Overrides(
        redis=redis or None,
        listen=listen,
        roles=roles,
        data_dir=data_dir,
        drain_timeout_s=drain_timeout,
        zone=zone or None,
    )
    return run_daemon(
        config,
        overrides,
        processes=processes,
        process_index=process_index,
        process_count=process_count,
        log_format=log_format,
        debug=debug,
    )
