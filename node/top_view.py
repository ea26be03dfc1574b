"""What `esmd top` shows: status documents become rates, and a screen of the terminal's size. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from node.printing import STATE_STYLES, ago, printable, sparkline, the_circuit
from node.stretch import Stretch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

_RATE_S = 4.0  # rates are told over this long
_HISTORY = 60
_WIDE = 110
_MEDIUM = 70
_NODES_SHOWN = 5
_FRAME = 8  # lines besides those of nodes, mappings and shards
_SECONDS_SHOWN_S = 60.0
_COUNTED = ("polled", "delivered", "filtered", "destination", "dropped")
_ORDER = {"failed": 0, "unowned": 1, "retrying": 2, "waiting": 3}
_MAPPING_STYLES = {"Enabled": "green", "Disabled": "dim"}
_NOTHING = {"OK", "No records processed"}


@dataclass(slots=True)
class _Course:
    ledgers: Stretch[dict[str, int]] = field(default_factory=lambda: Stretch(_RATE_S))
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))


class Courses:
    """Remembers what rates need. `at` is in seconds of any steady clock."""

    def __init__(self) -> None:
        self._courses: dict[str, _Course] = {}

    def take(self, document: Mapping[str, Any], *, at: float) -> None:
        """Take in the next document."""
        present = {mapping["uuid"]: mapping["ledger"] for mapping in document["mappings"]}
        self._courses = {uuid: self._courses.get(uuid, _Course()) for uuid in present}
        for uuid, ledger in present.items():
            course = self._courses[uuid]
            course.ledgers.add(at, {name: ledger[name] for name in _COUNTED})
            rates = self.rates(uuid)
            if rates is not None:
                course.history.append(rates["delivered"])

    def rates(self, uuid: str) -> dict[str, float] | None:
        """Return records a second by what became of them; None as long as there is one document only."""
        ends = self._courses[uuid].ledgers.ends() if uuid in self._courses else None
        if ends is None:
            return None
        (began, first), (ended, last) = ends
        # A ledger goes back when a shard's next holder reads again what the last one had not saved.
        return {name: max(0, last[name] - first[name]) / (ended - began) for name in _COUNTED}

    def history(self, uuid: str) -> Sequence[float]:
        """Return what was delivered a second lately, oldest first."""
        return list(self._courses[uuid].history) if uuid in self._courses else []


@dataclass(slots=True)
class Choice:
    """What the user chose: a mapping, and a text that names must contain."""

    name: str | None = None
    text: str = ""
    typing: bool = False

    def shown(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the mappings whose names contain the text."""
        return [mapping for mapping in document["mappings"] if self.text.lower() in mapping["name"].lower()]

    def index(self, shown: Sequence[Mapping[str, Any]]) -> int:
        """Return the place of the chosen mapping; the first when it is not there."""
        return next((place for place, mapping in enumerate(shown) if mapping["name"] == self.name), 0)

    def press(self, key: str, document: Mapping[str, Any]) -> bool:
        """Heed a key: a character, or `up`, `down`, `enter`, `escape`, `backspace`. False: it asks for the end."""
        if self.typing and self._edit(key):
            return True
        shown = self.shown(document)
        step = {"up": -1, "k": -1, "down": 1, "j": 1}.get(key)
        if step is not None and shown:
            self.name = shown[min(len(shown) - 1, max(0, self.index(shown) + step))]["name"]
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.text = ""
        return key != "q"

    def _edit(self, key: str) -> bool:
        if key in {"enter", "escape"}:
            self.typing = False
            self.text = "" if key == "escape" else self.text
        elif key == "backspace":
            self.text = self.text[:-1]
        elif len(key) == 1 and key.isprintable():
            self.text += key
        else:
            return False  # arrows choose while one types, too
        return True


def screen(
    document: Mapping[str, Any],
    courses: Courses,
    choice: Choice,
    *,
    width: int,
    height: int | None = None,
    trouble: str | None = None,
) -> RenderableType:
    """Return the whole screen. No `height`: as long as it gets. `trouble`: why there is no newer document."""
    shown = choice.shown(document)
    chosen = shown[choice.index(shown)] if shown else None
    room = None if height is None else max(2, height - _FRAME)
    nodes = document["nodes"][: _NODES_SHOWN if room is None else min(_NODES_SHOWN, room // 3)]
    room = None if room is None else room - len(nodes)
    # The mappings get what they need, up to half; the shards of the chosen one get the rest.
    for_mappings = len(shown) if room is None else min(len(shown), max(1, room // 2))
    for_shards = None if room is None else max(1, room - for_mappings)
    return Group(
        _headline(document, courses, width),
        _nodes(nodes),
        Text(),
        _mappings(_window(shown, choice.index(shown), for_mappings), chosen, courses, width=width),
        Text(),
        *([] if chosen is None else _shards(chosen, for_shards, wide=width >= _WIDE)),
        _foot(choice, trouble),
    )


def _headline(document: Mapping[str, Any], courses: Courses, width: int) -> RenderableType:
    rates = [rates["delivered"] for one in document["mappings"] if (rates := courses.rates(one["uuid"])) is not None]
    shards = sum(len(one["shards"]) for one in document["mappings"])
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    what = f"  {len(document['mappings'])} mappings, {shards} shards, {len(document['nodes'])} nodes"
    total = f"{sum(rates):,.0f} delivered/s" if rates else ""
    grid.add_row(Text.assemble(("esmd top", "bold cyan"), what), Text(total, "bold green"))
    grid.width = width
    return grid


def _nodes(nodes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("node", "shards", "heartbeat", left=("roles",))
    for node in nodes:
        table.add_row(
            printable(node["id"]), f"{node['shards']:,}", f"{node['heartbeat_age_s']:.1f} s", ", ".join(node["roles"])
        )
    return table


def _mappings(
    shown: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any] | None, courses: Courses, *, width: int
) -> Table:
    room = width >= _MEDIUM
    table = _table("  mapping", "per s", *(("in flight", "parked") if room else ()), "lag", "oldest", left=("state",))
    if width >= _WIDE:
        table.add_column("delivered/s", no_wrap=True)
    for mapping in shown:
        more: list[Text] = []
        rates, ledger = courses.rates(mapping["uuid"]), mapping["ledger"]
        lag = _told(sum, [shard["lag_records"] for shard in mapping["shards"]])
        oldest = _told(max, [shard["lag_s"] for shard in mapping["shards"]])
        here = mapping is chosen
        if room:
            parked = Text(f"{ledger['parked']:,}", "yellow" if ledger["parked"] else "dim")
            more = [Text(f"{ledger['in_flight']:,}"), parked]
        state, style = _state(mapping)
        table.add_row(
            Text.assemble(("▸ " if here else "  ", "cyan"), printable(mapping["name"], "bold" if here else "")),
            "-" if rates is None else f"{rates['delivered']:,.0f}",
            *more,
            "-" if lag is None else f"{lag:,.0f}",
            _age(oldest),
            Text(state, style),
            *([Text(sparkline(courses.history(mapping["uuid"]), 30), "green")] if width >= _WIDE else []),
        )
    return table


def _state(mapping: Mapping[str, Any]) -> tuple[str, str]:
    """Return what to say of a mapping in a word or two, the gravest thing first."""
    if not mapping["ledger"]["balanced"]:
        return "ledger!", "bold red"
    if mapping["state"] == "Enabled":
        if mapping["last_processing_result"] not in _NOTHING:
            return "problem", "red"
        if (mapping.get("circuit") or {}).get("state", "closed") != "closed":
            return "slowed", "yellow"
    return mapping["state"], _MAPPING_STYLES.get(mapping["state"], "yellow")


def _shards(mapping: Mapping[str, Any], room: int | None, *, wide: bool) -> list[RenderableType]:
    """Show a mapping's shards, those in trouble first, and what there is to say about it."""
    shards = sorted(mapping["shards"], key=lambda shard: (_ORDER.get(shard["state"], 9), -(shard["lag_records"] or 0)))
    states = Counter(shard["state"] for shard in shards)
    head = printable(mapping["name"], "bold")
    head.append("  " + ", ".join(f"{count:,} {state}" for state, count in states.most_common()), "dim")
    told = the_circuit(mapping.get("circuit")) or (
        "" if mapping["last_processing_result"] in _NOTHING else mapping["last_processing_result"]
    )
    if told:
        head.append("  ").append_text(printable(told, "yellow"))
    head.no_wrap, head.overflow = True, "ellipsis"
    table = _table("  shard", "lag", "oldest", left=("state", "owner", "checkpoint") if wide else ("state",))
    table.add_column("last error, or remark", no_wrap=True, overflow="ellipsis")
    for shard in shards[:room]:
        error = shard["last_error"]
        table.add_row(
            printable(f"  {shard['id']}"),
            "-" if shard["lag_records"] is None else f"{shard['lag_records']:,}",
            _age(shard["lag_s"]),
            Text(shard["state"], STATE_STYLES.get(shard["state"], "dim")),
            *([printable(shard["owner"]), printable(shard["checkpoint"])] if wide else []),
            _first_line(error, "red") if error else _first_line(shard.get("remark") or "", "yellow"),
        )
    return [head, table]


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < _SECONDS_SHOWN_S else ago(seconds)


def _first_line(text: str, style: str) -> Text:
    return printable(text.split("\n", 1)[0], style) if text else Text()


def _foot(choice: Choice, trouble: str | None) -> Text:
    if trouble is not None:
        foot = printable(f"no news: {trouble}", "bold yellow")
    elif choice.typing:
        foot = Text.assemble(("/", "bold"), choice.text, ("▏", "dim"))
    else:
        told = f"  showing names with “{choice.text}”, Esc shows all" if choice.text else ""
        foot = Text(f"q quit   ↑ ↓ choose   / find{told}", "dim")
    foot.no_wrap, foot.overflow = True, "ellipsis"
    return foot


def _table(first: str, *numbers: str, left: Sequence[str] = ()) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in left:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    return table


def _told(total: Any, values: Sequence[float | None]) -> float | None:
    """Return a total of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return total(known) if known else None


def _window(shown: list[dict[str, Any]], chosen: int, size: int) -> list[dict[str, Any]]:
    """Return the part of a list that fits, with the chosen one in it."""
    first = max(0, min(chosen - size // 2, len(shown) - size))
    return shown[first : first + size]
