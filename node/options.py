"""What `esmd run` was asked to do: the files' settings with the command line's overrides applied. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from model.lease import ALL_ROLES, Role

if TYPE_CHECKING:
    from pathlib import Path

    from config.settings import Settings

REDIS_VARIABLE = "ESMD_RUN_REDIS"
"""Stands for `--redis` in children. Not ESMD_REDIS_URL: that yields to what configuration files say."""

_ZONE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_PORT = 65535


class ListenAddress(NamedTuple):
    """Where the HTTP surface is served. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return HOST:PORT, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read HOST:PORT, :PORT (all interfaces) or [IPV6]:PORT. Raises ValueError saying what is wrong."""
        host, colon, port = text.strip().rpartition(":")
        if not colon:
            raise ValueError(f"{text!r} is not HOST:PORT")
        bracketed = host.startswith("[") and host.endswith("]")
        if ":" in host and not bracketed:
            raise ValueError(f"{text!r}: write an IPv6 address in brackets, [::1]:9001")
        if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
            raise ValueError(f"{text!r}: {port!r} is not a port between 0 and {_MAX_PORT}")
        return cls((host[1:-1] if bracketed else host) or "0.0.0.0", int(port))  # noqa: S104 - asked for, and refused without auth


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Overrides:
    """The command line of `esmd run`, apart from the files. None: not given."""

    redis: str | None = field(default=None, repr=False)  # may hold a password
    listen: ListenAddress | None = None
    roles: frozenset[Role] | None = None
    data_dir: Path | None = None
    drain_timeout_s: float | None = None
    zone: str | None = None

    def sections(self) -> dict[str, object]:
        """Return what was given in the form of a configuration file, for `config.load`."""
        given = {
            "redis": {"url": self.redis} if self.redis is not None else None,
            "listen": str(self.listen) if self.listen is not None else None,
            "data_dir": str(self.data_dir) if self.data_dir is not None else None,
            "drain_timeout": self.drain_timeout_s,
        }
        return {key: value for key, value in given.items() if value is not None}

    def arguments(self) -> list[str]:
        """Return the options that mean the same, without the Redis URL: everybody can see command lines."""
        options = {
            "--listen": str(self.listen) if self.listen is not None else None,
            "--role": ",".join(sorted(self.roles)) if self.roles is not None else None,
            "--data-dir": str(self.data_dir.absolute()) if self.data_dir is not None else None,
            "--drain-timeout": str(self.drain_timeout_s) if self.drain_timeout_s is not None else None,
            "--zone": self.zone,
        }
        return [part for name, value in options.items() if value is not None for part in (name, value)]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """All that `node.wiring.run_node` is told."""

    files: tuple[Path, ...]  # to be read again, under the same overrides, on SIGHUP
    overrides: Overrides
    settings: Settings  # overrides applied
    process_index: int = 0  # which of `--processes` this one is
    process_count: int = 1  # how many of them there are

    @property
    def roles(self) -> frozenset[Role]:
        """What this node does."""
        return ALL_ROLES if self.overrides.roles is None else self.overrides.roles

    @property
    def listen(self) -> ListenAddress:
        """Where to serve HTTP: only the first of several processes takes the configured address."""
        if self.process_index > 0:
            return ListenAddress("127.0.0.1", 0)
        return ListenAddress.parse(self.settings.listen)


def parse_zone(text: str) -> str:
    """Read `--zone LABEL`. Raises ValueError for what is no label."""
    if not _ZONE.fullmatch(text):
        raise ValueError("a zone is up to 64 letters, digits and . _ -")
    return text


def parse_roles(text: str) -> frozenset[Role]:
    """Read `--role ROLE,…`. Raises ValueError naming the roles there are."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in {*Role}]
    if unknown or not names:
        given = ", ".join(unknown) or "nothing"
        raise ValueError(f"{given}: the roles are {', '.join(Role)}")
    return frozenset(Role(name) for name in names)
