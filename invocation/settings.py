"""What a node must know to call a function. `config` fills these from YAML (contract section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.secret import SecretText


LONGEST_TIMEOUT_S = 900.0
"""The longest that a function may be given (spec section 1.3)."""

_UNKNOWN_TIMEOUT_S = LONGEST_TIMEOUT_S + 10.0
"""How long to wait for a function whose timeout is not told: the longest, and the way there and back."""


@dataclass(frozen=True, slots=True)
class UrlFunction:
    """A plain HTTP endpoint that takes the event as a POST."""

    name: str
    url: str
    timeout_s: float = 30.0
    headers: Mapping[str, SecretText] = field(default_factory=dict)
    http: bool = False  # whether requests to its URL on a node are answered; so below


@dataclass(frozen=True, slots=True)
class LambdaFunction:
    """A function behind a Lambda-compatible Invoke API.

    With `endpoint` the request goes there, unsigned unless `signed`; without, to AWS Lambda in the ARN's region.
    """

    name: str
    function: str  # name, name:qualifier or ARN, as put into the request path
    endpoint: str | None = None
    signed: bool = False
    timeout_s: float = _UNKNOWN_TIMEOUT_S
    http: bool = False


@dataclass(frozen=True, slots=True)
class RieFunction:
    """Containers with the Lambda Runtime Interface Emulator, each taking one invocation at a time."""

    name: str
    endpoints: tuple[str, ...]
    timeout_s: float = _UNKNOWN_TIMEOUT_S
    http: bool = False


class Isolation(StrEnum):
    """How much a sandbox keeps apart (docs/functions.md)."""

    PROCESS = "process"
    BUBBLEWRAP = "bubblewrap"


@dataclass(frozen=True, slots=True)
class HandlerFunction:
    """Code that runs in a sandbox of a node."""

    name: str
    handler: str
    code: str
    runtime: str = "python3"
    timeout_s: float = 3.0
    memory_mb: int = 128
    environment: Mapping[str, SecretText] = field(default_factory=dict)
    isolation: Isolation = Isolation.PROCESS
    network: bool = False  # matters with bubblewrap only: a mere process has the node's network
    http: bool = False


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How many execution environments a node keeps, and for how long. None: what the machine has room for."""

    environments: int | None = None
    memory_mb: int | None = None  # of all environments together, each counted with its function's memory
    lease_s: float = 6 * 3600.0
    idle_s: float = 300.0


FunctionSettings = UrlFunction | LambdaFunction | RieFunction | HandlerFunction


def known_timeout_s(function: FunctionSettings) -> float | None:
    """Return a function's own timeout; None when nobody has told it and only AWS knows."""
    return function.timeout_s if function.timeout_s <= LONGEST_TIMEOUT_S else None
