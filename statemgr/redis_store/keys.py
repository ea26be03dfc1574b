"""Every key the fleet uses in Redis.

All keys carry one hash tag, `{namespace}`, so a Redis Cluster keeps them in one slot: only then may one script see
members, wanted shards, holdings and progress in one atomic step, and a fleet's memory is small enough for one node
(10,000 shards take about 10 MB). Two fleets on one Redis have different namespaces. An ACL user needs
`~esmd:{namespace}:*` and `&esmd:{namespace}:*`.

    meta       hash    incarnation, version, mappings_revision, functions_revision, token (the highest ever given out or
                       seen)
    members    hash    node -> "TTL_US DRAINING|ROLES|ZONE ADDRESS"
    expiry     zset    node -> when its membership ends, microseconds by Redis's clock
    mappings   hash    mapping -> msgpack [id, name, document, revision, state, reason, modified_us, drained,
                       parked_tries, applied, seeks, seek]
    names      hash    name -> mapping
    removed    hash    mapping that was removed, or shards of which were retired -> token; every older one is stale
    wanted     hash    mapping/shard -> ""
    wanted_of  hash    mapping -> msgpack [[shard, kind, weight], …], source shards only, ordered
    holdings   hash    mapping/shard -> "TOKEN NODE"; holders are members
    reserved   hash    mapping/shard -> "RELEASED_US SUCCESSOR"
    progress:MAPPING  hash, per shard up to four fields: t/SHARD token, p/SHARD position, o/SHARD origin, d/SHARD
                      msgpack of everything else
    parked:MAPPING/SHARD  hash, the shard's parking lot: rev its revision, POSITION msgpack of a parked record
    functions  hash    function/part -> msgpack [document or false, applied, modified_us]
    reserved_concurrency  hash  function -> its reserved concurrency, the same as in its part
    counting   hash    last_us (when anybody counted slots last), calm_us (until when only shares are granted)
    counting_holders  zset  holder of slots -> when it expires, microseconds by Redis's clock
    slots:POOL  hash   holder -> slots it holds; POOL is a function with reserved concurrency, or empty
    codes      hash    SHA-256 of an archive of code -> "NOTED_US 1", without the 1 while pieces are missing
    code:SHA256  hash  number -> piece of the archive
    offers     hash    node -> JSON of what it offers to run for others; of members only, others' are cleared away
    fleet_secret  string  what nodes with `auth` prove themselves to each other with
    wake       channel of empty messages: the snapshot or the mappings changed
    events     channel of empty messages: there is an event where somebody waits for one
    async      hash    n/PARTITION events in it, bytes of all of them, idle/PARTITION while its holder waits for some
    async_lines:PARTITION  set of functions that have events in it
    async:PARTITION/FUNCTION        stream of events: e the event, m msgpack [asked, request id, trace]
    async_due:PARTITION/FUNCTION    zset of those that were taken: id -> when due, ms by Redis's clock; AWAY: never
    async_state:PARTITION/FUNCTION  hash, cursor: up to where the stream was taken; id -> msgpack of its standing

The last three keys are made inside scripts, from the second: which functions have events only Redis knows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.concurrency import Pool
    from model.ids import MappingId, ShardKey

DEFAULT_NAMESPACE = "default"
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FLEET = ("meta", "members", "expiry", "mappings", "names", "removed", "wanted", "wanted_of", "holdings", "reserved")


class Keys:
    """The keys of one fleet, as bytes."""

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ValueError(f"namespace {namespace!r}: 1 to 64 letters, digits, dots, hyphens and underscores")
        self._prefix = f"esmd:{{{namespace}}}:"
        self.fleet: tuple[bytes, ...] = tuple(self._key(name) for name in _FLEET)
        """What every script but the two on progress gets first, in the order that `scripts/common.lua` names them."""
        self.meta = self._key("meta")
        self.removed = self._key("removed")
        self.wake = self._key("wake")
        self.functions = self._key("functions")
        self.reserved_concurrency = self._key("reserved_concurrency")
        self.codes = self._key("codes")
        self.counting = self._key("counting")
        self.counting_holders = self._key("counting_holders")
        self.async_queue = self._key("async")
        self.events = self._key("events")
        self.offers = self._key("offers")
        self.fleet_secret = self._key("fleet_secret")

    def progress(self, mapping: MappingId) -> bytes:
        """Return the key of a mapping's progress."""
        return self._key(f"progress:{mapping}")

    def parked(self, shard: ShardKey) -> bytes:
        """Return the key of a shard's parking lot."""
        return self._key(f"parked:{shard}")

    def code(self, digest: str) -> bytes:
        """Return the key of an archive."""
        return self._key(f"code:{digest}")

    def slots(self, pool: Pool) -> bytes:
        """Return the key of who holds slots of a pool."""
        return self._key(f"slots:{pool}")

    def async_lines(self, partition: int) -> bytes:
        """Return the key of the functions that have events in a partition."""
        return self._key(f"async_lines:{partition}")

    def _key(self, name: str) -> bytes:
        return (self._prefix + name).encode()
