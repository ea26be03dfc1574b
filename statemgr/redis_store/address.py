"""Reads the URL of a Redis, without connecting. Pure; errors and texts never show user names, passwords or the URL.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]          one server, also the address of a managed one
    unix://[USER[:PASSWORD]@]/PATH[?db=DB]              a Unix socket
    redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT],…/SERVICE[/DB]
                                                        the primary of SERVICE, as these sentinels say (port 26379);
                                                        ?sentinel_username=U&sentinel_password=P if they ask for one
    redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT],…
                                                        a Cluster; some of its nodes are enough

`rediss` instead of `redis` means TLS, also `rediss+sentinel` and `rediss+cluster`. Certificates are always verified:
against the system's authorities, or those in the file `?ssl_ca_certs=PATH`; `&ssl_certfile=PATH&ssl_keyfile=PATH` show
one's own. Percent-encode what is special in names and passwords. `PASSWORD` alone is written `redis://:PASSWORD@…`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlsplit

_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
_PORT, _SENTINEL_PORT = 6379, 26379


class Topology(StrEnum):
    """What is behind a URL."""

    SINGLE = "redis"
    UNIX = "unix"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis, ready to be connected to. Its text form is safe to log."""

    topology: Topology
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""  # of the Unix socket
    db: int = 0
    service: str = ""  # the sentinels' name for it
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_files: tuple[tuple[str, str], ...] = ()  # redis-py's names of these parameters, and paths

    def __str__(self) -> str:
        """Return what to show to operators."""
        if self.topology is Topology.UNIX:
            return f"unix://{self.path}"
        scheme = self.topology.replace("redis", "rediss", 1) if self.tls else self.topology
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{hosts}" + (f"/{self.service}" if self.service else "")


def parse_redis_url(url: str) -> RedisAddress:
    """Read a URL of one of the forms above. Raises ValueError, saying what is wrong but not the URL."""
    scheme, separator, rest = url.partition("://")
    tls = scheme == "rediss" or scheme.startswith("rediss+")
    try:
        topology = Topology(scheme.replace("rediss", "redis", 1) if tls else scheme)
    except ValueError:
        separator = ""
    if not separator:
        raise ValueError("a Redis URL begins with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    authority, slash, tail = rest.partition("?")[0].partition("/")
    credentials, _, places = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    options = _options(rest.partition("?")[2], tls=tls, topology=topology)
    db = options.pop("db", "")
    hosts: tuple[tuple[str, int], ...] = ()
    service = path = ""
    match topology:
        case Topology.UNIX:
            if places or not tail:
                raise ValueError("a Redis URL for a Unix socket looks like unix:///run/redis.sock")
            path = unquote(slash + tail)
        case Topology.SENTINEL:
            service, _, db = tail.partition("/")
            if not service:
                raise ValueError("a redis+sentinel URL ends with /SERVICE, the sentinels' name for the primary")
            service = unquote(service)
            hosts = _hosts(places, _SENTINEL_PORT)
        case Topology.SINGLE | Topology.CLUSTER:
            db = tail or db
            hosts = _hosts(places, _PORT)
    if topology is Topology.SINGLE and len(hosts) > 1:
        raise ValueError("a redis URL names one host; several need redis+cluster:// or redis+sentinel://")
    return RedisAddress(
        topology,
        hosts=hosts,
        path=path,
        db=_database(db, topology),
        service=service,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
        tls=tls,
        tls_files=tuple(sorted(options.items())),
    )


def _options(query: str, *, tls: bool, topology: Topology) -> dict[str, str]:
    allowed = {"db"} if topology in (Topology.UNIX, Topology.SINGLE) else set()
    allowed |= _TLS_OPTIONS if tls else set()
    allowed |= _SENTINEL_OPTIONS if topology is Topology.SENTINEL else set()
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(options.keys() - allowed):
        known = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"unknown option {', '.join(unknown)} in the Redis URL; possible here: {known}")
    return options


def _hosts(places: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for place in places.split(","):
        try:
            parts = urlsplit(f"//{place}")
            host, port = parts.hostname, default_port if parts.port is None else parts.port
        except ValueError:
            host, port = None, 0
        if not host or not port:
            raise ValueError("a Redis URL names its servers as HOST or HOST:PORT, separated by commas")
        hosts.append((host, port))
    return tuple(hosts)


def _database(text: str, topology: Topology) -> int:
    text = text.strip("/")
    if text and not text.isdecimal():
        raise ValueError("the database in a Redis URL is a number")
    number = int(text or 0)
    if number and topology is Topology.CLUSTER:
        raise ValueError("a Redis Cluster has database 0 only")
    return number
