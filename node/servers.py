"""What a node needs before it works: its store, the servers it is told to start as children, its event sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from controlplane.mappings import AT_REST
from model.errors import SourceRefusedError
from node.embedded_aws import EmbeddedAws
from node.embedded_kafka import EmbeddedKafka
from node.embedded_redis import EmbeddedRedis
from node.startup import wait_for, without_credentials
from statemgr.redis_store.store import RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AsyncExitStack

    from config.settings import Settings
    from model.secret import SecretResolver
    from node.runtimes import Catalogue, Runtimes
    from pollers.pump_parts import PumpParts
    from pollers.queue_calls import QueueParts
    from statemgr.stores import Store

log = structlog.get_logger(__name__)


async def start_kafka(settings: Settings, servers: AsyncExitStack) -> str | None:
    """Start the broker that the settings ask for, as a child; return where it is. None: they ask for none."""
    if settings.embedded.kafka is None:
        return None
    kafka = await servers.enter_async_context(EmbeddedKafka(settings.embedded.kafka.topics))
    log.info("embedded.kafka", servers=kafka.bootstrap_servers, topics=dict(settings.embedded.kafka.topics))
    return kafka.bootstrap_servers


async def start_aws(settings: Settings, servers: AsyncExitStack) -> str | None:
    """Start the AWS services that the settings ask for, as a child; return where they are. None: they ask for none."""
    if settings.embedded.aws is None:
        return None
    aws = await servers.enter_async_context(EmbeddedAws(account_id=settings.aws.account_id))
    log.info("embedded.aws", endpoint_url=aws.endpoint_url)
    return aws.endpoint_url


async def open_store(settings: Settings, resolver: SecretResolver, servers: AsyncExitStack) -> Store:
    """Connect to the fleet's Redis, or start one of our own. Raises `NotReachedInTimeError`."""
    if settings.redis_url is None:
        fsync = {"appendfsync": settings.embedded.redis.fsync}
        redis = await servers.enter_async_context(EmbeddedRedis(settings.data_dir / "redis", settings=fsync))
        url = redis.url
        log.info("embedded.redis", url=without_credentials(url), data_dir=str(settings.data_dir))
    else:
        url = await resolver.resolve(settings.redis_url)
    # A heartbeat that hangs must fail early enough to be tried again within the trust window.
    store = RedisStore.from_url(url, timeout_s=min(2.0, settings.leasing.ttl_s / 5))
    servers.push_async_callback(store.aclose)
    await wait_for(f"Redis at {without_credentials(url)}", store.ping)
    return store


async def sources_reached(names: Iterable[str], catalogue: Catalogue, runtimes: Runtimes) -> None:
    """Wait for the sources of mappings that are at work. Raises `NotReachedInTimeError`."""
    for name in names:
        record = catalogue.named(name)
        if record is None or record.state in AT_REST:
            continue  # the API has disabled or deleted it
        async with runtimes.using(record.id) as parts:

            async def reachable(parts: PumpParts | QueueParts = parts, name: str = name) -> None:
                try:
                    await parts.source.shards()
                except SourceRefusedError as exc:
                    # Reached; what it says is for an operator, and the mapping's tracker goes on asking.
                    log.error("source.refused", mapping=name, error=str(exc))  # noqa: TRY400

            await wait_for(f"the event source of mapping {name}", reachable)
