"""Redis in the shapes it has in production, from private servers: a three-node Cluster, a primary behind Sentinel, TLS.

Everything listens on loopback and ends with its context manager. The embedded server binary may lack TLS, so TLS is
ended by a relay of our own in front of a plain server: what is tested is our client.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.embedded_redis import EmbeddedRedis, find_redis_server
from tests.support.redis_process import RedisProcess, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_SLOTS = 16384


async def until(true: Callable[[], bool], what: str, *, timeout_s: float = 30) -> None:
    """Wait until a server has come to the state asked for; servers tell only when asked."""
    try:
        async with asyncio.timeout(timeout_s):
            while not true():  # noqa: ASYNC110 - the server sends no event
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still not: {what}") from None


def ask(port: int, *command: str) -> object:
    """Run one command on a connection of its own."""
    with redis.Redis(port=port, decode_responses=True) as client:
        return client.execute_command(*command)


@contextlib.asynccontextmanager
async def redis_cluster(folder: Path) -> AsyncIterator[list[EmbeddedRedis]]:
    """Run a Cluster of three nodes that covers all slots."""
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "appendonly": "no"}
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for number in range(3):
            server = EmbeddedRedis(folder / f"node-{number}", port=_port_with_bus(), settings=settings)
            nodes.append(await stack.enter_async_context(server))
        ports = [node.port for node in nodes if node.port is not None]
        for number, port in enumerate(ports):
            first, last = number * _SLOTS // 3, (number + 1) * _SLOTS // 3
            ask(port, "CLUSTER", "ADDSLOTS", *map(str, range(first, last)))
            ask(port, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for port in ports[1:]:
            ask(port, "CLUSTER", "MEET", "127.0.0.1", str(ports[0]))
        await until(lambda: all(_cluster_is_ready(port) for port in ports), "a cluster that covers all slots")
        yield nodes


def _port_with_bus() -> int:
    """Return a free port that leaves room for the cluster bus, which listens 10,000 above."""
    while True:
        port = free_port()
        if port + 10000 <= 65535:
            return port


def _cluster_is_ready(port: int) -> bool:
    told = str(ask(port, "CLUSTER", "INFO"))
    return "cluster_state:ok" in told and "cluster_known_nodes:3" in told


class SentinelFleet:
    """A primary, its replica and one sentinel that decides alone."""

    def __init__(self, primary: EmbeddedRedis, replica: EmbeddedRedis, sentinel_port: int) -> None:
        self.primary = primary
        self.replica = replica
        self.url = f"redis+sentinel://127.0.0.1:{sentinel_port}/fleet/0"


@contextlib.asynccontextmanager
async def redis_behind_sentinel(folder: Path) -> AsyncIterator[SentinelFleet]:
    """Run a primary with a replica, watched by a sentinel that promotes the replica within about two seconds."""
    port = free_port()
    config = folder / "sentinel.conf"
    async with contextlib.AsyncExitStack() as stack:
        primary = await stack.enter_async_context(EmbeddedRedis(folder / "primary", port=0))
        settings = {"replicaof": f"127.0.0.1 {primary.port}", "repl-diskless-sync-delay": "0"}
        replica = await stack.enter_async_context(EmbeddedRedis(folder / "replica", port=0, settings=settings))
        if primary.port is None or replica.port is None:
            raise AssertionError("the servers have ports")
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor fleet 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds fleet 500\nsentinel failover-timeout fleet 2000\n"
        )
        stack.enter_context(RedisProcess([str(find_redis_server()), str(config), "--sentinel"], port))
        known = str(replica.port)
        await until(lambda: known in str(ask(port, "SENTINEL", "SLAVES", "fleet")), "a sentinel that knows the replica")
        yield SentinelFleet(primary, replica, port)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1 and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis.test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "redis.crt", folder / "redis.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


@contextlib.asynccontextmanager
async def tls_relay(to_port: int, certificate: Path, key: Path) -> AsyncIterator[int]:
    """Speak TLS on a free port and pass everything on to a plain server; return the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", to_port)
        with contextlib.suppress(OSError, ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, inner_writer))
                tasks.create_task(copy(inner_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
