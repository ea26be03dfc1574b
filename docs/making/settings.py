"""The page of a node's settings: from the table that files are checked with, and the defaults of what they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.sections import SECTIONS
from config.settings import Settings
from docs.making.words import code, flat, grid, head, shape_words, value, without_default

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULTS: Mapping[str, Callable[[Settings], object]] = {
    "listen": lambda made: made.listen,
    "data_dir": lambda made: made.data_dir,
    "leasing.ttl": lambda made: made.leasing.ttl_s,
    "drain_timeout": lambda made: made.drain_timeout_s,
    "aws.region": lambda made: made.aws.region,
    "aws.account_id": lambda made: made.aws.account_id,
    "invoke.account_concurrency": lambda made: made.invoke.account_concurrency,
    "async_invoke.queue": lambda made: made.async_invoke.queue_mb,
    "control_plane.create_functions": lambda made: made.control_plane.create_functions,
    "control_plane.isolation": lambda made: made.control_plane.isolation,
    "control_plane.network": lambda made: made.control_plane.network,
    "control_plane.rate_limits.reads": lambda made: made.rate_limits.reads,
    "control_plane.rate_limits.changes": lambda made: made.rate_limits.changes,
    "control_plane.rate_limits.invokes": lambda made: made.rate_limits.invokes,
    "auth.failed_logins": lambda made: made.rate_limits.failed_logins,
    "sandboxes.lease": lambda made: made.sandboxes.lease_s,
    "sandboxes.idle": lambda made: made.sandboxes.idle_s,
    "embedded.redis.fsync": lambda made: made.embedded.redis.fsync,
}
"""What a node does where nothing is said, asked of the settings themselves."""

VARIABLES: Mapping[str, str] = {
    "ESMD_URL": "Node that client commands ask, where `--url` is not given",
    "ESMD_TOKEN": "Token that client commands show to a node with `auth`",
    "ESMD_REDIS_URL": "The Redis of the fleet, where no file says `redis`",
    "ESMD_RUN_REDIS": "The same as `esmd run --redis`: goes over files",
    "ESMD_ZONE": "The same as `esmd run --zone`",
    "ESMD_START_LIMIT": "Seconds that a starting node waits for Redis and for each broker (60), before it ends",
    "ESMD_DEBUG": "The same as `--debug`",
}
"""The variables that esmd itself reads. A test finds those that are missing here."""

_INTRODUCTION = """
The sections of a configuration file, all of them esmd's own.
[Configuration](../configuration.md#where-a-setting-comes-from) says which of several places wins. `functions` and
`event_source_mappings` have pages of their own: [functions](functions.md), [mappings](mappings.md). Top-level keys
that begin with `x-` are ignored. `a.b` is `b` inside of `a`.
"""

_OF_AWS = """
`AWS_REGION` and `AWS_DEFAULT_REGION` are the region, where no file says `aws.region`. The AWS SDK reads all of its
own: `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_SQS` and so on. OpenTelemetry's are in
[Traces](../tracing.md).
"""


def page() -> str:
    """Return the page."""
    made = Settings()
    rows = []
    for path, field in flat(SECTIONS.values()):
        about, told = without_default(field.about)
        asked = DEFAULTS.get(path)
        default = "**required**" if field.required else value(asked(made)) if asked is not None else told
        if path == "redis":
            default = "`embedded`"
        rows.append((code(path), about, shape_words(field.shape), default))
    variables = grid(("Variable", "What it is"), [(code(name), about) for name, about in VARIABLES.items()])
    return "".join(
        (
            head(__name__, "Settings of a node"),
            _INTRODUCTION,
            "\n",
            grid(("Key", "What it is", "Type and range", "Default"), rows),
            "\n## Environment variables\n\n",
            variables,
            _OF_AWS,
        )
    )
