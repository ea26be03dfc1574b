"""Opens redis-py clients for an address, with an explicit policy for time-outs, retries and TLS.

No hidden retries: a call that fails fails now, and whoever called knows what that means for a lease. The caller puts a
deadline around each call; a call that is cancelled has its connection closed by redis-py, so no answer is ever read by
the wrong caller. `statemgr.redis_store.address` documents the URLs.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis, Sentinel, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from statemgr.redis_store.address import RedisAddress, Topology, parse_redis_url

if TYPE_CHECKING:
    from redis.asyncio.connection import Connection

_CLUSTER_DISCOVERY_CALLS = 3  # of the calls that may fit into one deadline while a cluster's nodes are looked up


class RedisClients:
    """Where commands go, and clients for listening: each has a connection of its own."""

    def __init__(self, address: RedisAddress, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._sentinel: Sentinel | None = None
        if address.topology is Topology.SENTINEL:
            self._sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
                address.hosts,
                sentinel_kwargs={
                    **self._policy(timeout_s / (len(address.hosts) + 1)),  # a silent one leaves time for the others
                    "username": address.sentinel_username,
                    "password": address.sentinel_password,
                    **({"ssl": True, **dict(address.tls_files)} if address.tls else {}),
                },
            )
        self.commands: Redis | RedisCluster = self._open_commands()

    async def execute(self, *command: Any) -> Any:
        """Run a command. Raises redis-py's errors, and OSError; nothing else for a reason outside."""
        if isinstance(self.commands, RedisCluster):
            # Else redis-py 8 looks up the nodes in the midst of the first calls, and breaks some that run side by side
            await self.commands.initialize()
        try:
            return await self.commands.execute_command(*command)
        except AttributeError as exc:  # redis-py closed a cluster connection under a call, after another one's failure
            raise RedisConnectionError("the connection was closed") from exc

    def listener(self) -> Redis:
        """Return a client for pub/sub. The caller closes it. Its reads have no time-out: silence is normal."""
        address = self.address
        if address.topology is Topology.SENTINEL:
            return self._primary(socket_timeout=None)
        if isinstance(self.commands, RedisCluster):
            nodes = [(str(node.host), int(node.port)) for node in self.commands.get_nodes()] or list(address.hosts)
            return self._plain(random.choice(nodes), socket_timeout=None)  # noqa: S311 - any node publishes everything
        return self._plain(address.hosts[0] if address.hosts else ("", 0), socket_timeout=None)

    async def aclose(self) -> None:
        """Close what is open. Safe to call twice."""
        await self.commands.aclose()
        for sentinel in self._sentinel.sentinels if self._sentinel is not None else ():
            await sentinel.aclose()

    def _open_commands(self) -> Redis | RedisCluster:
        address = self.address
        if address.topology is Topology.SENTINEL:
            return self._primary()
        if address.topology is not Topology.CLUSTER:
            return self._plain(address.hosts[0] if address.hosts else ("", 0))
        settings: dict[str, Any] = {
            **self._policy(self._timeout_s / _CLUSTER_DISCOVERY_CALLS),
            **self._credentials(),
            **dict(address.tls_files),
        }
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, ssl=address.tls, **settings)

    def _policy(self, timeout_s: float | None) -> dict[str, Any]:
        return {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s if timeout_s is not None else self._timeout_s,
            "socket_keepalive": True,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }

    def _credentials(self) -> dict[str, Any]:
        return {"username": self.address.username, "password": self.address.password}

    def _plain(self, place: tuple[str, int], **changed: Any) -> Redis:
        address = self.address
        settings = {**self._policy(self._timeout_s), **self._credentials(), "db": address.db, **changed}
        connection_class: type[Connection] | None = None
        if address.topology is Topology.UNIX:
            del settings["socket_keepalive"]
            settings |= {"path": address.path, "connection_class": UnixDomainSocketConnection}
        else:
            settings |= {"host": place[0], "port": place[1]}
            if address.tls:
                connection_class = SSLConnection
                settings |= {"connection_class": connection_class, **dict(address.tls_files)}
        return Redis.from_pool(ConnectionPool(**settings))

    def _primary(self, **changed: Any) -> Redis:
        address = self.address
        if self._sentinel is None:
            raise TypeError(f"{address} is not behind sentinels")
        settings = {**self._policy(self._timeout_s), **self._credentials(), "db": address.db, **changed}
        if address.tls:
            settings |= {"ssl": True, **dict(address.tls_files)}
        client: Redis = self._sentinel.master_for(address.service, **settings)
        return client


def connect(url: str, *, timeout_s: float) -> RedisClients:
    """Return clients for a URL; nothing is connected yet. Raises ValueError for a URL that cannot be read."""
    return RedisClients(parse_redis_url(url), timeout_s=timeout_s)
