"""Turns the fleet's values into what `scripts/` store, and replies back into values. Pure; `keys` tells the formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from model.async_event import ASYNC_QUEUE
from model.ids import TRACKER, FencingToken, MappingId, NodeId, Position, ShardId, ShardKey, ShardOrigin
from model.lease import FleetSnapshot, Holding, Member, Role, ShardKind, TickReply, WantedShard
from model.mapping import MappingRecord, MappingState
from model.progress import (
    Blocking,
    CircuitReport,
    Ledger,
    ParkedKey,
    ParkedRecords,
    ShardProgress,
    ShardReport,
    ShardState,
    Tenure,
    WaitsFor,
)
from model.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from model.progress import ParkedChange, ProgressUpdate

US = 1_000_000  # microseconds in a second
_LEDGER = Ledger.__struct_fields__


class _Saved(msgspec.Struct, array_like=True, gc=False):
    """What a save keeps beside token and position. New fields go to the end, with defaults."""

    token: int
    node: str
    ledger: list[int]
    state: bytes
    shard_state: ShardState
    lag_records: int | None
    lag_s: float | None
    last_result: str
    last_error: str | None
    origin: str | None = None
    loss_in_s: float | None = None
    parked_keys: tuple[ParkedKey, ...] = ()
    remark: str | None = None
    circuit: CircuitReport | None = None
    error_time: float | None = None
    waits_for: WaitsFor | None = None
    blocking: Blocking | None = None
    tenures: tuple[Tenure, ...] = ()
    parked_tries: int = 0
    load: float = 1.0
    next_s: int | None = None


class _Parked(msgspec.Struct, array_like=True, gc=False):
    """A parked record. Its position is the name of its field; numbers beyond 64 bits are text."""

    arrival_ms: int
    fragment: bytes
    key: Any  # bytes, text or None, as msgpack tells apart
    item_id: str
    item_is_number: bool


class _Record(msgspec.Struct, array_like=True, gc=False):
    """A mapping's record. Lua packs it too, and knows the order."""

    id: str
    name: str
    document: str
    revision: int
    state: MappingState
    state_reason: str
    modified_us: int
    drained: int = 0
    parked_tries: int = 0
    applied: str = ""
    seeks: int = 0
    seek: str = ""


class _Wanted(msgspec.Struct, array_like=True, gc=False):
    shard: str
    kind: ShardKind
    weight: float


_pack = msgspec.msgpack.Encoder().encode
_unpack_saved = msgspec.msgpack.Decoder(_Saved).decode
_unpack_parked = msgspec.msgpack.Decoder(_Parked).decode
_unpack_record = msgspec.msgpack.Decoder(_Record).decode
_unpack_wanted = msgspec.msgpack.Decoder(list[_Wanted]).decode


def standing(member: Member) -> str:
    """Write what others must know at once: `DRAINING|ROLES|ZONE`."""
    return f"{int(member.draining)}|{','.join(sorted(member.roles))}|{member.zone}"


def tick_reply(reply: Sequence[Any]) -> TickReply:
    """Read the reply of `beat.lua`."""
    incarnation, version, mappings_revision, member, next_us = reply
    next_expiry_s = None if next_us < 0 else next_us / US
    return TickReply(incarnation.decode(), int(version), int(mappings_revision), bool(member), next_expiry_s)


def snapshot(reply: Sequence[Any]) -> FleetSnapshot:
    """Read the reply of `snapshot.lua`."""
    now_us, version, facts, expiry, wanted_of, held, kept = reply
    expires_us = {node: float(at) for node, at in _pairs(expiry)}
    ttl_us: dict[NodeId, int] = {}
    members = []
    for node, told in sorted(_pairs(facts)):
        ttl, told_standing, address = told.decode().split(" ", 2)
        draining, roles, zone = told_standing.split("|", 2)
        name = NodeId(node.decode())
        ttl_us[name] = 0 if draining == "1" else int(ttl)
        age_s = max(0.0, (now_us - expires_us[node] + int(ttl)) / US)
        members.append(
            Member(name, frozenset(map(Role, filter(None, roles.split(",")))), draining == "1", address, age_s, zone)
        )
    holdings = {}
    for key, holding in _pairs(held):
        token, _, holder = holding.decode().partition(" ")
        holdings[ShardKey.parse(key.decode())] = Holding(NodeId(holder), FencingToken(int(token)))
    reserved = {}
    for key, reservation in _pairs(kept):
        released_us, _, text = reservation.decode().partition(" ")
        successor = NodeId(text)
        if now_us < int(released_us) + ttl_us.get(successor, 0):
            reserved[ShardKey.parse(key.decode())] = successor
    return FleetSnapshot(int(version), tuple(members), tuple(_all_wanted(wanted_of)), holdings, reserved)


def _all_wanted(wanted_of: Sequence[bytes]) -> Iterator[WantedShard]:
    for mapping_bytes, packed in sorted(_pairs(wanted_of)):
        mapping = MappingId(mapping_bytes.decode())
        if mapping != ASYNC_QUEUE:  # nothing of it is to be discovered
            yield WantedShard(ShardKey(mapping, TRACKER), ShardKind.TRACKER)
        for wanted in _unpack_wanted(packed):
            yield WantedShard(ShardKey(mapping, ShardId(wanted.shard)), wanted.kind, wanted.weight)


def pack_wanted(shards: Mapping[ShardKey, WantedShard]) -> bytes:
    """Write a mapping's wanted source shards, the same for the same ones in any order."""
    return _pack([(key.shard, shard.kind, float(shard.weight)) for key, shard in sorted(shards.items())])


def save_args(
    updates: Sequence[ProgressUpdate], places: Sequence[int], parked_places: Mapping[ShardKey, int]
) -> list[bytes]:
    """Write the arguments of `save.lua`; the places say which key each update's progress, and parking lot, has."""
    flat: list[int | str] = []
    changes: list[bytes] = []
    for update, place in zip(updates, places, strict=True):
        lot = parked_places.get(update.key, 0)
        flat += (place, update.key.shard, str(update.token), update.position or "", int(update.rewind), lot)
        if update.parked is not None:
            changes += _pack_change(update.parked)
    return [_pack(flat), *map(pack_progress, updates), *changes]


def _pack_change(change: ParkedChange) -> list[bytes]:
    """Write a change of a parking lot: base or "", revision, positions to drop, positions to put; then their records.

    Lua's msgpack reads no bytes, so each record is an argument of its own.
    """
    base = "" if change.base is None else str(change.base)
    drop = [str(position) for position in change.drop]
    header = (base, str(change.revision), drop, [str(record.position) for record in change.put])
    return [_pack(header), *map(_pack_parked, change.put)]


def _pack_parked(record: Record) -> bytes:
    item_id = record.item_id
    return _pack(
        _Parked(record.arrival_ms, record.fragment, record.key, str(item_id), item_is_number=isinstance(item_id, int))
    )


def parked_records(fields: Mapping[bytes, bytes]) -> ParkedRecords:
    """Read a whole parking lot."""
    revision = int(fields.get(b"rev", 0))
    records = []
    for position in sorted(int(name) for name in fields if name != b"rev"):
        found = _unpack_parked(fields[b"%d" % position])
        item_id = int(found.item_id) if found.item_is_number else found.item_id
        records.append(Record(position, found.arrival_ms, found.fragment, found.key, item_id))
    return ParkedRecords(revision, tuple(records))


def pack_progress(update: ProgressUpdate) -> bytes:
    """Write everything of an update but its token (for fencing) and its position."""
    ledger, report = update.ledger, update.report
    row: tuple[Any, ...] = (
        update.token,
        update.node,
        [getattr(ledger, column) for column in _LEDGER],
        update.state,
        report.state,
        report.lag_records,
        report.lag_s,
        report.last_result,
        report.last_error,
        update.origin,
        report.loss_in_s,
        report.parked_keys,
        report.remark,
        report.circuit,
        report.error_time,
        report.waits_for,
        report.blocking,
        report.tenures,
        report.parked_tries,
        report.load,
        report.next_s,
    )
    try:
        return _pack(row)
    except UnicodeEncodeError:  # an error text with undecodable bytes in it must not stop a checkpoint
        return _pack(tuple(map(_encodable, row)))


def _encodable(part: Any) -> Any:
    if isinstance(part, CircuitReport):
        return msgspec.structs.replace(part, error=_encodable(part.error))
    return part.encode(errors="replace").decode() if isinstance(part, str) else part


def move_args(updates: Sequence[ProgressUpdate]) -> list[Any]:
    """Write the arguments of `move.lua` about shards."""
    args: list[Any] = []
    for update in updates:
        change = b"" if update.parked is None else _pack_change(update.parked)[0]
        args += (update.key.shard, update.position or "", update.origin or "", pack_progress(update), change)
    return args


def pack_origins(origins: Mapping[ShardId, ShardOrigin]) -> bytes:
    """Write origins as one flat list of shards and origins."""
    return _pack([text for pair in origins.items() for text in pair])


def progress(position: bytes | None, packed: bytes | None, noted: bytes | None) -> ShardProgress:
    """Read a shard's progress; nothing saved is empty progress but for the origin noted by the tracker."""
    origin = None if noted is None else ShardOrigin(noted.decode())
    if packed is None:
        return ShardProgress(origin=origin)
    saved = _unpack_saved(packed)
    if origin is None and saved.origin is not None:
        origin = ShardOrigin(saved.origin)
    return ShardProgress(
        Position(position.decode()) if position is not None else None,
        FencingToken(saved.token),
        NodeId(saved.node),
        Ledger(*saved.ledger),
        saved.state,
        ShardReport(
            saved.shard_state,
            saved.lag_records,
            saved.lag_s,
            saved.last_result,
            saved.last_error,
            saved.loss_in_s,
            saved.parked_keys,
            saved.remark,
            saved.circuit,
            saved.error_time,
            saved.waits_for,
            saved.blocking,
            saved.tenures,
            saved.parked_tries,
            saved.load,
            saved.next_s,
        ),
        origin,
    )


def mapping_progress(mapping: MappingId, fields: Mapping[bytes, bytes]) -> dict[ShardKey, ShardProgress]:
    """Read all fields of a `progress:MAPPING` hash. Shards that were only leased are left out."""
    names = sorted({name[2:] for name in fields if name.startswith((b"d/", b"o/"))})
    return {
        ShardKey(mapping, ShardId(name.decode())): progress(
            fields.get(b"p/" + name), fields.get(b"d/" + name), fields.get(b"o/" + name)
        )
        for name in names
    }


def record(packed: bytes) -> MappingRecord:
    """Read a mapping's record."""
    found = _unpack_record(packed)
    return MappingRecord(
        MappingId(found.id),
        found.name,
        found.document.encode(),
        found.revision,
        found.state,
        found.state_reason,
        found.modified_us / US,
        found.drained,
        found.parked_tries,
        found.applied,
        found.seeks,
        found.seek,
    )


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
