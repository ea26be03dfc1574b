"""Where tests find AWS's API: on servers of this machine, and in AWS itself when ESMD_TEST_AWS=1 asks for it.

Whatever a test makes there goes through a `Lab`, which deletes it in the end, also when the test fails or is
interrupted. Names begin with `esmd-test-` and are used once, so what a killed run leaves behind is easy to find.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar

import botocore.session
import pytest
from botocore.config import Config

from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

VARIABLE = "ESMD_TEST_AWS"
AWS = "aws"
_REGION = "us-east-1"  # of the servers on this machine
_TEST_S = 900  # a stream takes half a minute to be made, and as long to be split
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": _REGION}
"""What servers on this machine take, as environment variables."""


class _Deletable(Protocol):
    def delete(self) -> None: ...


_T = TypeVar("_T", bound=_Deletable)


class AwsServer(NamedTuple):
    """Where the API is. `endpoint_url` None: in AWS, which the SDK finds by itself."""

    endpoint_url: str | None

    @property
    def real(self) -> bool:
        """Whether this is AWS itself: far away, shared with others, and with a clock of its own."""
        return self.endpoint_url is None

    @property
    def limit_s(self) -> float:
        """How long to wait for what should show; reached by a defect only."""
        return 240.0 if self.real else 60.0

    @property
    def moment_s(self) -> float:
        """After how long it is a later millisecond on our clock and on the server's."""
        return 3.0 if self.real else 0.01

    @property
    def region(self) -> str:
        """The Region of everything that is made here."""
        return _own_region() or _REGION if self.real else _REGION

    @property
    def account(self) -> str:
        """The account that everything here belongs to."""
        return _own_account() if self.real else "000000000000"

    def section(self) -> dict[str, str]:
        """Return the `aws` section of a node's configuration."""
        return {"region": self.region} | ({} if self.endpoint_url is None else {"endpoint_url": self.endpoint_url})

    def environment(self) -> Mapping[str, str]:
        """Return the variables that a process needs besides those of this one: credentials."""
        return {} if self.real else CREDENTIALS


class Lab(Generic[_T]):
    """Makes things of one kind on a server, and deletes them at the end of the block."""

    def __init__(self, server: AwsServer, kind: Callable[..., _T]) -> None:
        self.server = server
        self._kind = kind
        self._made = contextlib.ExitStack()

    def new(self, **options: Any) -> _T:
        """Make one. Blocks."""
        one = self._kind(self.server.endpoint_url, **options)
        self._made.callback(one.delete)
        return one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.__exit__(kind, exc, trace)  # deletes all of them, whatever goes wrong with some


def with_aws(*names: str, environ: Mapping[str, str] = os.environ) -> list[Any]:
    """Return a fixture's parameters: these servers, and AWS itself when it is asked for."""
    if environ.get(VARIABLE) != "1":
        return [*names]
    return [*names, pytest.param(AWS, marks=[pytest.mark.aws, pytest.mark.timeout(_TEST_S)])]


def real_aws() -> AwsServer:
    """Return AWS itself. Skips without credentials or a Region: nobody but its owner can have them there."""
    if _own_region() is None:
        pytest.skip(f"{VARIABLE}=1, but no Region is configured: set AWS_REGION, or AWS_PROFILE")
    if botocore.session.get_session().get_credentials() is None:
        pytest.skip(f"{VARIABLE}=1, but the SDK finds no credentials")
    return AwsServer(None)


def aws_client(
    service: str, endpoint_url: str | None, *, region: str | None = None, attempts: int | None = None
) -> Any:
    """Make the SDK's client of a server. `region`: another one than where everything is made.

    `attempts`: how often it tries a call; None leaves it to the SDK.
    """
    own = {"aws_access_key_id": "test", "aws_secret_access_key": "test"} if endpoint_url is not None else {}
    return botocore.session.get_session().create_client(
        service,
        region_name=region or AwsServer(endpoint_url).region,
        endpoint_url=endpoint_url,
        config=Config(retries={"total_max_attempts": attempts}) if attempts else None,
        **own,
    )


def fresh_name(kind: str) -> str:
    """Make a name that no other test uses, in this run or any other."""
    return unique_name(f"esmd-test-{kind}")


def _own_region() -> str | None:
    found: str | None = os.environ.get("AWS_REGION") or botocore.session.get_session().get_config_variable("region")
    return found


@cache
def _own_account() -> str:
    account: str = aws_client("sts", None).get_caller_identity()["Account"]
    return account
