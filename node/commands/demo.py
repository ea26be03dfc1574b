"""`esmd demo`: see it work on this machine, with everything embedded."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after N seconds.  [Ctrl-C]"
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON document on standard output.")
@click.option(
    "--rate",
    type=click.IntRange(1, 5000),
    default=1000,
    show_default=True,
    help="Order events per second; a tenth as many clicks, a fiftieth as many mails.",
)
@click.option(
    "--functions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Add the functions and mappings of a configuration file: on the demo's topic `orders`, its stream `clicks`, "
    "queues of mails, or a schedule.",
)
@click.pass_context
def demo_command(ctx: click.Context, *, seconds: float | None, as_json: bool, rate: int, functions: Path | None) -> int:
    """See esmd work: orders from Kafka, clicks from Kinesis and mails from SQS flow to functions, live in the terminal.

    Starts a private Redis, a Kafka broker, Kinesis and SQS on the loopback interface, and a node with a real
    configuration file that runs Python functions in sandboxes, one of them by a schedule. Needs no network and leaves
    nothing behind. Ctrl-C ends it with a summary. `make demo` adds the functions of examples/functions.
    """
    from node.demo.show import run_demo  # noqa: PLC0415 - a node's parts are loaded when one runs

    debug = bool((ctx.find_root().obj or {}).get("debug"))
    return run_demo(seconds=seconds, as_json=as_json, rate=rate, debug=debug, functions=functions)
