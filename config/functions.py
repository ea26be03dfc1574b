"""What functions look like in a file, and which of them a mapping's FunctionName means."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from invocation.settings import HandlerFunction, Isolation, LambdaFunction, RieFunction, UrlFunction
from model.concurrency import LEAST_UNRESERVED
from model.definition_rules import environment_problems
from model.function_config import FunctionPart
from model.function_rules import PART_FIELDS, event_invoke_problem, part_documents
from model.rules.checking import INVALID
from model.rules.parameters import FUNCTION
from model.rules.shapes import Boolean, Choice, Field, Integer, ListOf, MapOf, Number, Table, Text, text
from model.rules.wording import wrong_kind
from model.secret import SecretText

if TYPE_CHECKING:
    from collections.abc import Mapping

    from config.settings import AwsSettings, InvokeSettings
    from invocation.settings import FunctionSettings
    from model.rules.checking import Checker
    from model.rules.wording import Place

_HOST = r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?)"
URL = text(
    rf"https?://{_HOST}(:\d{{1,5}})?([/?][^\s#$@]*)?",
    "an http:// or https:// URL without user, password or secret reference (credentials belong into headers)",
    longest=2048,
    secret=True,
)
ENDPOINT = text(rf"https?://{_HOST}(:\d{{1,5}})?/?", "http://HOST:PORT or https://HOST:PORT", longest=2048, secret=True)

FUNCTION_NAME = text(r"[a-zA-Z0-9_-]{1,64}", "a function name: up to 64 letters, digits, - and _")
_TIMEOUT = Field("timeout", Number(0.1, 900), "Seconds one invocation may take")
_HTTP = Field("http", Boolean(), "Whether it has a URL: /functions/NAME/url/ on nodes (default false)")
_VALUE = Text(0, 8192, secret=True)
_HEADER = Text(0, 8192, secret=True, pattern=text(r"[^\r\n\0]*", "one line").pattern, means="one line of text")

KINDS: Mapping[str, Table] = {
    "url": Table((
        Field("url", URL, "Takes the event as a POST", required=True),
        _TIMEOUT,
        _HTTP,
        Field("headers", MapOf(text(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "a header name"), _HEADER, 50), "Request headers"),
        *PART_FIELDS,
    )),
    "arn": Table((
        Field("arn", Text(1, 256, text(r"arn:aws[a-z0-9-]*:lambda:.+", "a function ARN").pattern, "a function ARN"),
              "Lambda function; requests are signed by the SDK", required=True),
        _TIMEOUT,
        _HTTP,
        *PART_FIELDS,
    )),
    "rie": Table((
        Field("rie", ListOf(ENDPOINT, 1, 1000, unique=True),
              "Runtime Interface Emulators, one invocation at a time each", required=True),
        _TIMEOUT,
        _HTTP,
        *PART_FIELDS,
    )),
    "handler": Table((
        Field("handler", text(r"[^\s.][^\s]*\.[^\s.]+", "FILE.FUNCTION"), "FILE.FUNCTION in the code", required=True),
        Field("code", Text(1, 4096), "Folder, from the working directory", required=True),
        Field("runtime", text(r"[a-z][a-z0-9.]*", "a runtime such as python3"),
              "python3, nodejs, or provided for an executable `bootstrap` (default python3)"),
        _TIMEOUT,
        _HTTP,
        Field("memory", Integer(128, 10240), "MB of one execution environment"),
        Field("environment", MapOf(text(r"[a-zA-Z_][a-zA-Z0-9_]*", "a variable name"), _VALUE, 1000),
              "Environment variables"),
        Field("isolation", Choice(("process", "bubblewrap")), "How much a sandbox keeps apart (default process)"),
        Field("network", Boolean(), "With bubblewrap: may the function use the network (default false)"),
        *PART_FIELDS,
    )),
}  # fmt: skip
"""The forms of a function, by the key that tells them apart."""


def parse_function(
    name: str, value: object, checker: Checker, at: Place, aws: AwsSettings
) -> tuple[FunctionSettings, Mapping[FunctionPart, bytes]] | None:
    """Return one entry of `functions`, and what it says for the whole fleet; None when a problem was noted."""
    if not isinstance(value, dict):
        checker.report(at, wrong_kind("a mapping", value))
        return None
    kinds = [kind for kind in KINDS if value.get(kind) is not None]
    if len(kinds) != 1:
        have = " and ".join(kinds)
        checker.report(at, f"needs exactly one of {', '.join(KINDS)}" + (f", not {have}" if have else ""))
        return None
    before = len(checker.problems)
    checked = checker.table(KINDS[kinds[0]], value, at)
    if kinds[0] == "arn" and isinstance(checked, dict) and not FUNCTION.fullmatch(str(checked.get("arn", "name"))):
        checker.report((*at, "arn"), "must be a function ARN")
    if kinds[0] == "handler" and isinstance(checked, dict):
        _check_handler(checked, checker, at)
    events = checked.get("event_invoke") if isinstance(checked, dict) and len(checker.problems) == before else None
    if events is not None and (rule := event_invoke_problem(events, function=name, exists=lambda _: True)):
        checker.report((*at, "event_invoke"), rule)
    if len(checker.problems) > before or checked is INVALID or not isinstance(checked, dict):
        return None
    function = replace(_build(kinds[0], name, checked, aws), http=checked.get("http", False))
    return function, part_documents(checked)


def _check_handler(given: dict[str, Any], checker: Checker, at: Place) -> None:
    """Note what joins several fields of a `handler` function."""
    variables = given.get("environment", {})
    for variable, rule in environment_problems(variables):
        checker.report((*at, "environment", *(() if variable is None else (variable,))), rule)
    if given.get("network") is False and given.get("isolation", "process") != Isolation.BUBBLEWRAP:
        checker.report((*at, "network"), "can be kept from a function with `isolation: bubblewrap` only")


def _build(kind: str, name: str, given: dict[str, Any], aws: AwsSettings) -> FunctionSettings:
    timeout: dict[str, Any] = {"timeout_s": float(given["timeout"])} if "timeout" in given else {}
    if kind == "url":
        headers = {key: SecretText(item) for key, item in given.get("headers", {}).items()}
        return UrlFunction(name, given["url"], headers=headers, **timeout)
    if kind == "arn":
        return LambdaFunction(name, given["arn"], endpoint=aws.endpoint_url, signed=True, **timeout)
    if kind == "rie":
        return RieFunction(name, tuple(url.rstrip("/") for url in given["rie"]), **timeout)
    environment = {key: SecretText(item) for key, item in given.get("environment", {}).items()}
    others: dict[str, Any] = {key: given[key] for key in ("runtime", "network") if key in given}
    if "memory" in given:
        others["memory_mb"] = given["memory"]
    if "isolation" in given:
        others["isolation"] = Isolation(given["isolation"])
    return HandlerFunction(name, given["handler"], given["code"], environment=environment, **others, **timeout)


def over_reserved(parts: Mapping[str, Mapping[FunctionPart, bytes]], account: int) -> list[tuple[str, str]]:
    """Return the functions whose concurrency leaves too little for the others, and the rule they break."""
    found, reserved = [], 0
    for name, said in parts.items():
        if FunctionPart.CONCURRENCY not in said:
            continue
        reserved += int(said[FunctionPart.CONCURRENCY])
        if account - reserved < LEAST_UNRESERVED:
            rule = f"{reserved:,} are reserved with this one, of invoke.account_concurrency {account:,}"
            found.append((name, f"{rule}; {LEAST_UNRESERVED} must be left for other functions"))
    return found


def target_for(
    function_name: str, functions: Mapping[str, FunctionSettings], aws: AwsSettings, invoke: InvokeSettings
) -> FunctionSettings | None:
    """Return what a FunctionName stands for.

    A listed function goes first: by its name, with or without qualifier, or by an ARN in the configured region and
    account. Then the Invoke API for every other function; then AWS itself for a full ARN.
    """
    parts = FUNCTION.fullmatch(function_name)
    if parts is None:
        return None
    if (listed := listed_function(function_name, functions, aws)) is not None:
        return listed
    account = parts["account"] or parts["account_only"]
    if invoke.endpoint is not None:
        return LambdaFunction(function_name, function_name, endpoint=invoke.endpoint)
    if function_name.startswith("arn:") and parts["region"] and account:
        return LambdaFunction(function_name, function_name, endpoint=aws.endpoint_url, signed=True)
    return None


def listed_function(
    function_name: str, functions: Mapping[str, FunctionSettings], aws: AwsSettings
) -> FunctionSettings | None:
    """Return the listed function that a FunctionName means, if it means one."""
    parts = FUNCTION.fullmatch(function_name)
    if parts is None:
        return None
    account = parts["account"] or parts["account_only"]
    ours = parts["region"] in (None, aws.region) and account in (None, aws.account_id)
    return functions.get(parts["name"]) if ours else None


def function_arn(function_name: str, functions: Mapping[str, FunctionSettings], aws: AwsSettings) -> str:
    """Return the ARN by which documents name a mapping's function, with a qualifier only if the mapping has one.

    Functions that are not in AWS get the ARN they would have there, in the configured region and account.
    """
    parts = FUNCTION.fullmatch(function_name)
    if parts is None:
        return function_name
    listed = functions.get(parts["name"])
    if isinstance(listed, LambdaFunction) and listed.function.startswith("arn:"):
        return listed.function
    if function_name.startswith("arn:") and parts["region"]:
        return function_name
    region, account = parts["region"] or aws.region, parts["account"] or parts["account_only"] or aws.account_id
    qualifier = f":{parts['qualifier']}" if parts["qualifier"] else ""
    return f"arn:{aws.partition}:lambda:{region}:{account}:function:{parts['name']}{qualifier}"
