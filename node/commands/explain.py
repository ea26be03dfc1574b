"""`esmd explain`: why a mapping is where it is, as any node of the fleet knows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType


@click.command("explain")
@click.argument("mapping")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="Any node of the fleet."
)
def explain_command(mapping: str, *, as_json: bool, url: str) -> None:
    """Say why MAPPING, a name or an id, is where it is.

    For each shard that is not simply being read: the record that holds it up, the attempts, the last error, who held
    it, and how long until records are lost. The last lines say it in plain words.
    """
    from node.client import NodeRefusedError, get_json, mapping_path  # noqa: PLC0415 - not for `esmd --help`

    document = get_json(url, mapping_path(mapping, "explain"))
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from node.printing import console  # noqa: PLC0415 - not for --json

    try:
        renderables = list(render(document))
    except (KeyError, TypeError, AttributeError) as error:
        raise NodeRefusedError(f"the node at {url} speaks another version of esmd: use --json") from error
    out = console()
    for renderable in renderables:
        out.print(renderable)


def render(document: dict[str, Any]) -> Iterable[RenderableType]:
    """Lay the document out for people."""
    from rich.text import Text  # noqa: PLC0415 - not for --json

    from node.printing import ago, printable  # noqa: PLC0415 - same

    good = document["state"] == "Enabled"
    yield Text.assemble(
        printable(document["name"], "bold"),
        "  ",
        printable(document["state"], "green" if good else "yellow"),
        "  ",
        printable(_reason(document), "dim"),
        "  ",
        printable(document["uuid"], "dim"),
    )
    yield printable(f"  last result  {document['last_processing_result']}")
    if document["discovery_error"] is not None:
        yield printable(f"  discovery    {document['discovery_error']}", "red")
    yield from _circuit(document["circuit"])
    queue = document["queue"]
    if queue is not None:
        backlog = "" if queue["backlog"] is None else f", backlog {queue['backlog']:,}"
        yield printable(
            f"  concurrency  {queue['busy']:,} busy lately, {queue['allowed_by_pollers']:,} allowed by the pollers, "
            f"{queue['concurrency']:,} by the state manager{backlog}"
        )
    if document.get("next_firing") is not None:
        yield printable(f"  next firing  {document['next_firing']}, in {ago(document['next_firing_in_s'])}")
    if document["shards_reading"]:
        behind_s = document["furthest_behind_s"]
        behind = "" if behind_s is None else f", the furthest {ago(behind_s)} behind"
        yield printable(f"  shards       {document['shards_reading']:,} simply being read{behind}")
    for shard in document["shards"]:
        yield Text()
        yield from _shard(shard)
    yield Text()
    for sentence in document["summary"]:
        yield printable(sentence, "bold")


def _reason(document: dict[str, Any]) -> str:
    from node.printing import ago  # noqa: PLC0415 - not for --json

    changed_s = document["changed_s"]
    return str(document["state_reason"]) + ("" if changed_s is None else f" {ago(changed_s)} ago")


def _circuit(circuit: dict[str, Any]) -> Iterable[RenderableType]:
    from node.printing import printable, the_circuit  # noqa: PLC0415 - not for --json

    told = the_circuit(circuit)
    if told:
        yield printable(f"  function     {told}", "yellow")


def _shard(shard: dict[str, Any]) -> Iterable[RenderableType]:
    from node.printing import STATE_STYLES, ago, printable  # noqa: PLC0415 - not for --json

    waits = "" if shard["waits_for"] is None else f", waits for the {shard['waits_for'].replace('_', ' ')}"
    yield printable(f"  {shard['id']}  {shard['state']}{waits}", STATE_STYLES.get(shard["state"], ""))
    facts = [("checkpoint", shard["checkpoint"] or "none yet")]
    if shard["lag_records"] is not None or shard["lag_s"] is not None:
        records = "" if shard["lag_records"] is None else f"{shard['lag_records']:,} records"
        seconds = "" if shard["lag_s"] is None else f"oldest {ago(shard['lag_s'])} old"
        facts.append(("behind", ", ".join(filter(None, (records, seconds)))))
    if shard["loss_in_s"] is not None:
        facts.append(("lost in", f"{ago(shard['loss_in_s'])}, if it goes on like this"))
    facts += _blocking(shard["blocking"])
    if shard["last_error"] is not None:
        when = "" if shard["error_age_s"] is None else f" ({ago(shard['error_age_s'])} ago)"
        facts.append(("last error", f"{shard['last_error']}{when}"))
    if shard["remark"] is not None:
        facts.append(("remark", shard["remark"]))
    for holder in reversed(shard["holders"]):
        how = holder["succession"].replace("_", " ")
        facts.append(
            ("held by", f"{holder['node']} since {ago(holder['since_s'])}, token {holder['fencing_token']}, {how}")
        )
    for key in shard["parked_keys"]:
        error = "" if key["last_error"] is None else f": {key['last_error']}"
        count = f"{key['records']:,} records for {ago(key['age_s'])}, {key['failures']:,} errors{error}"
        facts.append(("parked", f"{key['key']}, {count}"))
    for name, value in facts:
        yield printable(f"    {name:<11}  {value}")


def _blocking(blocking: dict[str, Any] | None) -> list[tuple[str, str]]:
    from node.printing import ago  # noqa: PLC0415 - not for --json

    if blocking is None:
        return []
    key = "" if blocking["key"] is None else f" of key {blocking['key']}"
    others = f", and {blocking['others']:,} more elsewhere" if blocking["others"] else ""
    attempts = (
        f"{blocking['function_errors']:,} function errors, {blocking['invocations']:,} invocations, "
        f"{blocking['setbacks']:,} setbacks"
    )
    retry_in_s = blocking["retry_in_s"]
    when = "not known" if retry_in_s is None else "now" if not retry_in_s else f"in {ago(retry_in_s)}"
    return [
        ("blocked by", f"record {blocking['record']}{key}, in a batch of {blocking['records']:,}{others}"),
        ("since", f"{ago(blocking['since_s'])}"),
        ("attempts", attempts),
        ("next try", when),
    ]
