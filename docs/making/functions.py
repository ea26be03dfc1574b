"""The page of what may be said of a function in a file: from the tables that files are checked with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from config.functions import KINDS, parse_function
from config.settings import AwsSettings
from docs.making.words import code, flat, grid, head, shape_words, value, without_default
from invocation.settings import known_timeout_s
from model.function_rules import PART_FIELDS
from model.rules.checking import Checker
from model.rules.wording import AwsVoice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invocation.settings import FunctionSettings

SMALLEST: Mapping[str, Mapping[str, Any]] = {
    "url": {"url": "http://f/"},
    "arn": {"arn": "arn:aws:lambda:us-east-1:000000000000:function:f"},
    "rie": {"rie": ["http://f:8080"]},
    "handler": {"handler": "app.handler", "code": "."},
}
"""A function of each kind in which everything that has a default is left out."""

KIND_WORDS = {
    "url": ("A URL", "The event is sent as a `POST`; the answer's body is the result."),
    "arn": ("A function in AWS Lambda", "Requests are signed by the SDK."),
    "rie": ("Containers with the Runtime Interface Emulator", "Each takes one invocation at a time."),
    "handler": ("Code that the node runs", "In a sandbox, under AWS's runtime client: [Functions](../functions.md)."),
}

_INTRODUCTION = """
What stands under `functions`, by a name of up to 64 letters, digits, `-` and `_`. The key that tells what kind it is
must be there once: `url`, `arn`, `rie` or `handler`. What each kind is asked, and which answers are errors, says the
[contract](../contract.md#3-invoke-targets); all of these keys are esmd's own, but for what stands under
`event_invoke`.
"""

_FOR_EACH = """
## Functions of every kind

What holds for a function in the whole fleet; the API may say it too ([control plane](../control-plane.md#functions)).

"""


def page() -> str:
    """Return the page."""
    parts = [head(__name__, "Parameters of functions"), _INTRODUCTION]
    for kind, table in KINDS.items():
        title, about = KIND_WORDS[kind]
        own = [field for field in table.fields if field not in PART_FIELDS]
        parts += [f"\n## {title}: `{kind}`\n\n{about}\n\n", _table(kind, _made(kind), own)]
    parts += [_FOR_EACH, _table("url", _made("url"), PART_FIELDS)]
    return "".join(parts)


def _made(kind: str) -> FunctionSettings:
    """Return the function that a file with the least in it means."""
    made = parse_function("f", dict(SMALLEST[kind]), Checker(AwsVoice()), ("functions", "f"), AwsSettings())
    if made is None:
        raise ValueError(f"no function: {SMALLEST[kind]}")
    return made[0]


def _table(kind: str, made: FunctionSettings, fields: Any) -> str:
    rows = []
    for path, field in flat(fields):
        about, told = without_default(field.about)
        default = "**required**" if field.required else _default(kind, path, made) or told
        rows.append((code(path), about, shape_words(field.shape), default))
    return grid(("Key", "What it is", "Type and range", "Default"), rows)


def _default(kind: str, path: str, made: FunctionSettings) -> str:
    if path == "timeout":
        known = known_timeout_s(made)
        return value(known) if known is not None else "what the function has, 900 at most"
    attribute = {"memory": "memory_mb", "runtime": "runtime", "isolation": "isolation", "network": "network"}.get(path)
    if path == "http":
        return value(made.http)
    return value(getattr(made, attribute)) if kind == "handler" and attribute else ""
