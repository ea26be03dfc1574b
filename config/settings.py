"""A node's settings (contract section 2) as values; `config.load` makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from config.functions import function_arn, listed_function, target_for
from invocation.settings import Isolation, SandboxSettings
from model.concurrency import DEFAULT_ACCOUNT_CONCURRENCY
from statemgr.event_queue import MAX_QUEUE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invocation.settings import FunctionSettings
    from model.function_config import FunctionPart
    from model.mapping import EventSourceMapping
    from model.secret import SecretText


MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LeasingSettings:
    """The leasing service."""

    ttl_s: float = 10.0


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """Region and account for ARNs; `endpoint_url` for emulators.

    Credentials come from the SDK, and so do its own endpoint variables (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SQS…).
    """

    region: str = "us-east-1"
    account_id: str = "000000000000"
    endpoint_url: str | None = None

    @property
    def partition(self) -> str:
        """The partition the region belongs to, as in ARNs."""
        if self.region.startswith("cn-"):
            return "aws-cn"
        return "aws-us-gov" if self.region.startswith("us-gov-") else "aws"


@dataclass(frozen=True, slots=True)
class AsyncInvokeSettings:
    """Asynchronous invocations: how many MB of events may wait in the whole fleet."""

    queue_mb: int = MAX_QUEUE_BYTES // MB


@dataclass(frozen=True, slots=True)
class InvokeSettings:
    """Lambda-compatible Invoke API for functions that are not listed; invocations of all functions at one time."""

    endpoint: str | None = None
    account_concurrency: int = DEFAULT_ACCOUNT_CONCURRENCY


@dataclass(frozen=True, slots=True)
class ControlPlaneSettings:
    """Whether callers of the Lambda API may make functions, and how strictly such functions are kept apart."""

    create_functions: bool = False
    isolation: Isolation = Isolation.PROCESS
    network: bool = False  # with bubblewrap


@dataclass(frozen=True, slots=True)
class RateLimitSettings:
    """Requests a second that one caller may send for long, by kind; 0: as many as he likes. Logins: failed ones."""

    reads: float = 100.0
    changes: float = 30.0
    invokes: float = 0.0
    failed_logins: float = 5.0


@dataclass(frozen=True, slots=True)
class EmbeddedKafka:
    """A Kafka broker to start as a child: partitions by topic."""

    topics: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmbeddedAws:
    """Kinesis, SQS, SNS and S3 in one child process."""


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """The private Redis. `fsync`: when what it wrote is on the disk, `everysec`, or `always` before it answers."""

    fsync: str = "everysec"


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """Servers to start as children, for a laptop or a test."""

    kafka: EmbeddedKafka | None = None
    aws: EmbeddedAws | None = None
    redis: EmbeddedRedis = field(default_factory=EmbeddedRedis)


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who may use the HTTP surface: by bearer token, which may be read-only, or signed with an access key."""

    tokens: tuple[SecretText, ...] = ()
    read_only_tokens: tuple[SecretText, ...] = ()
    access_keys: Mapping[str, SecretText] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What the HTTP surface proves itself with: PEM files, the certificate with its chain."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ConfiguredMapping:
    """An event source mapping and where it was written. `document` goes through `canonical_document` to the store."""

    document: Mapping[str, object]
    mapping: EventSourceMapping
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything configuration files, environment and command line say."""

    redis_url: SecretText | None = None  # None: a private redis-server process of this node
    listen: str = "127.0.0.1:9001"  # HOST:PORT
    data_dir: Path = Path(".esmd")
    leasing: LeasingSettings = field(default_factory=LeasingSettings)
    drain_timeout_s: float = 30.0
    aws: AwsSettings = field(default_factory=AwsSettings)
    invoke: InvokeSettings = field(default_factory=InvokeSettings)
    async_invoke: AsyncInvokeSettings = field(default_factory=AsyncInvokeSettings)
    functions: Mapping[str, FunctionSettings] = field(default_factory=dict)
    function_parts: Mapping[str, Mapping[FunctionPart, bytes]] = field(default_factory=dict)  # for the whole fleet
    event_source_mappings: tuple[ConfiguredMapping, ...] = ()
    control_plane: ControlPlaneSettings = field(default_factory=ControlPlaneSettings)
    rate_limits: RateLimitSettings = field(default_factory=RateLimitSettings)
    sandboxes: SandboxSettings = field(default_factory=SandboxSettings)
    embedded: EmbeddedSettings = field(default_factory=EmbeddedSettings)
    auth: AuthSettings | None = None
    tls: TlsSettings | None = None  # of `listen`

    @property
    def mappings(self) -> tuple[EventSourceMapping, ...]:
        """The mappings alone."""
        return tuple(found.mapping for found in self.event_source_mappings)

    def target_for(self, function_name: str) -> FunctionSettings | None:
        """Return what a FunctionName stands for: a listed function, the Invoke API, an ARN; None if nothing does."""
        return target_for(function_name, self.functions, self.aws, self.invoke)

    def listed_function(self, function_name: str) -> FunctionSettings | None:
        """Return the function of these files that a FunctionName stands for, if it is one of them."""
        return listed_function(function_name, self.functions, self.aws)

    def function_arn(self, function_name: str) -> str:
        """Return the ARN by which documents name a mapping's function."""
        return function_arn(function_name, self.functions, self.aws)
