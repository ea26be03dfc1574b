"""What an explanation comes to, in a sentence or two that a person understands at night. Pure."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from controlplane.status import WithoutHolder
from model.mapping import MappingState
from model.progress import CircuitState, ShardState, WaitsFor

if TYPE_CHECKING:
    from controlplane.explain import BlockingExplanation, Explanation, ShardExplanation

_SHOWN_ERROR = 160
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))
_MOVING = {
    MappingState.CREATING: "is being created",
    MappingState.ENABLING: "is being enabled",
    MappingState.UPDATING: "has been changed",
    MappingState.DISABLING: "is being disabled",
    MappingState.DELETING: "is being deleted",
}


def summary(explanation: Explanation) -> list[str]:
    """Return what matters most, and then what matters besides."""
    said = _of_mapping(explanation)
    if said:
        return said
    shards = sorted(explanation.shards, key=_urgency)
    troubled = [shard for shard in shards if _urgency(shard)[0] < _ONLY_PARKED]
    parked = [shard for shard in shards if shard.parked_keys]
    if not troubled:
        return [_parked(explanation, parked)] if parked else [_well(explanation)]
    calling = [shard for shard in troubled if shard.waits_for == WaitsFor.FUNCTION]
    if len(calling) == len(troubled) and explanation.circuit.state != CircuitState.CLOSED:
        return [_of_circuit(explanation, calling), *([_parked(explanation, parked)] if parked else [])]
    said = [_of_shard(explanation, troubled[0])]
    if len(troubled) > 1:
        said.append(f"{_count(len(troubled) - 1, 'more shard')} {_is(len(troubled) - 1)} not simply being read.")
    elif parked:
        said.append(_parked(explanation, parked))
    return said


def span(seconds: float) -> str:
    """Return a duration as people say it: the largest unit that it fills."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


# What is most urgent

_ONLY_PARKED = 3


def _urgency(shard: ShardExplanation) -> tuple[int, float]:
    """Order shards: what must be acted on, what fails, what waits, what is only on its way; the next to lose first."""
    loss_in_s = inf if shard.loss_in_s is None else shard.loss_in_s
    if shard.state == ShardState.FAILED or shard.waits_for is WaitsFor.PARKING_LOT:
        return (0, loss_in_s)
    if shard.waits_for is not None or shard.blocking is not None or shard.state == WithoutHolder.UNOWNED:
        return (1, loss_in_s)
    if shard.state != ShardState.READING or shard.loss_in_s is not None:
        return (2, loss_in_s)
    return (_ONLY_PARKED, loss_in_s)


# The mapping


def _of_mapping(explanation: Explanation) -> list[str]:
    """Say what holds up the mapping as a whole; nothing when its shards have more to tell."""
    name, state = explanation.name, explanation.state
    if explanation.seeking and explanation.discovery_error is None and explanation.pollers:
        return [f"{name} is being moved to another position: what is under way is finished first."]
    if state == MappingState.DISABLED:
        return [f"{name} is disabled and reads nothing; its checkpoints stay where they are until it is enabled."]
    if explanation.discovery_error is not None:
        error = _short(explanation.discovery_error)
        return [f"{name} cannot ask its source for its shards: {error}. It asks again by itself."]
    if explanation.pollers == 0:
        return [f"No node of the fleet polls, so {name} is not read: start one with `esmd run`."]
    if state in _MOVING and not explanation.shards:
        left = explanation.shards_reading
        held = f"{_count(left, 'shard')} {_is(left)} still at work" if left else "its state manager is at work on it"
        return [f"{name} {_MOVING[MappingState(state)]}: {held}."]
    return []


def _of_circuit(explanation: Explanation, waiting: list[ShardExplanation]) -> str:
    """Say that the function is not called: what a shard waits for besides is no news then."""
    circuit = explanation.circuit
    since = "" if circuit.since_s is None else f" since {span(circuit.since_s)}"
    error = _short(circuit.last_error or "no reason is known")
    again = f"tried again {'now' if not circuit.retry_in_s else f'in {span(circuit.retry_in_s)}'}"
    return (
        f"The function is not called{since}, because it throttles or is not reached ({error}), which uses up no retry; "
        f"{again}; {_count(len(waiting), 'shard')} {'waits' if len(waiting) == 1 else 'wait'} for it"
        f"{_until_loss(waiting[0])}."
    )


def _well(explanation: Explanation) -> str:
    if not explanation.shards_reading:
        return f"{explanation.name} has no shards to read."
    if explanation.next_firing is not None:
        return f"All is well: {explanation.name} fires next at {explanation.next_firing}{_in(explanation)}."
    behind_s = explanation.furthest_behind_s
    behind = "" if behind_s is None else f"; the oldest unfinished record is {span(behind_s)} old"
    number = explanation.shards_reading
    return f"All is well: {_count(number, 'shard')} {_is(number)} being read{behind}."


def _in(explanation: Explanation) -> str:
    in_s = explanation.next_firing_in_s
    return ", that is now" if not in_s else f", in {span(in_s)}"


# A shard


def _of_shard(explanation: Explanation, shard: ShardExplanation) -> str:
    return f"{_trouble(explanation, shard)}{_until_loss(shard)}."


def _trouble(explanation: Explanation, shard: ShardExplanation) -> str:
    """Say what is the matter: on its way somewhere, held up by something outside, by a record, or merely slow."""
    who = f"Shard {shard.id}"
    if shard.state in _ON_ITS_WAY:
        passing = _ON_ITS_WAY[shard.state].format(owner=shard.owner, pollers=explanation.pollers)
        return f"{who} {passing}"
    if shard.waits_for in (WaitsFor.DESTINATION, WaitsFor.PARKING_LOT, WaitsFor.SOURCE):
        return f"{who} {_held_up_outside(shard)}"
    if shard.blocking is not None:
        return _blocked(explanation, shard, shard.blocking)
    if shard.loss_in_s is not None and shard.state == ShardState.READING:
        behind = "" if shard.lag_s is None else f" by {span(shard.lag_s)}"
        return f"{who} is read, but more slowly than it grows: it is behind{behind}"
    return f"{who} is {shard.state}: {_short(shard.last_error or 'no reason is known')}"


_ON_ITS_WAY: dict[str, str] = {
    WithoutHolder.UNOWNED: "is held by no node; one of the {pollers} that poll takes it within seconds",
    WithoutHolder.PENDING: "is read as soon as the shards it came from are read to their end",
    WithoutHolder.STOPPED: "is not to be read any more; its checkpoint stays",
    ShardState.STARTING: "is just being taken up by {owner}",
    ShardState.DRAINING: "is just being handed over by {owner}",
    ShardState.DRAINED: "is read to its end",
}


def _held_up_outside(shard: ShardExplanation) -> str:
    error = _short(shard.last_error or "no reason is known")
    if shard.waits_for == WaitsFor.DESTINATION:
        blocked = "" if shard.blocking is None else f" with record {_named(shard.blocking)}"
        error = error.removeprefix("on-failure destination: ")
        return f"waits{blocked} until the on-failure destination takes it: {error}{_next_try(shard.blocking)}"
    if shard.waits_for == WaitsFor.PARKING_LOT:
        return "reads no further: its parking lot is full, and nothing in it may be given up"
    return (
        f"is not read, since its source {'refuses' if shard.state == ShardState.FAILED else 'does not answer'}: {error}"
    )


def _blocked(explanation: Explanation, shard: ShardExplanation, blocking: BlockingExplanation) -> str:
    error, named = _short(shard.last_error or "an error before a restart"), _named(blocking)
    if explanation.queue is not None:
        held = "is held up" if blocking.key is None else f"holds up its group {blocking.key}"
        times = _count(blocking.function_errors, "time")
        return (
            f"Message {blocking.record} {held}: the function failed on it, the last time with {error}; it was received "
            f"{times} and shows again {_when(blocking)}"
        )
    if blocking.function_errors:
        why = f"the function has failed {_count(blocking.function_errors, 'time')} with {error}"
    elif shard.state == ShardState.WAITING:
        why = f"the function takes nothing now ({error}), which uses up no retry"
    else:
        why = f"the function failed on its batch with {error}"
    return f"Shard {shard.id} waits for record {named}: {why}{_next_try(blocking)}"


def _named(blocking: BlockingExplanation) -> str:
    return blocking.record if blocking.key is None else f"{blocking.record} of key {blocking.key}"


def _next_try(blocking: BlockingExplanation | None) -> str:
    return "" if blocking is None else f"; tried again {_when(blocking)}"


def _when(blocking: BlockingExplanation) -> str:
    return "now" if not blocking.retry_in_s else f"in {span(blocking.retry_in_s)}"


def _until_loss(shard: ShardExplanation) -> str:
    if shard.loss_in_s is None:
        return ""
    if shard.loss_in_s <= 0:
        return "; records are being lost to the source's retention"
    return f"; nothing is lost before {span(shard.loss_in_s)}"


# Parked keys


def _parked(explanation: Explanation, shards: list[ShardExplanation]) -> str:
    keys = [key for shard in shards for key in shard.parked_keys]
    records = sum(key.records for key in keys)
    longest = max(keys, key=lambda key: key.age_s)
    others = f" and {_count(len(keys) - 1, 'other')}" if len(keys) > 1 else ""
    why = "" if longest.last_error is None else f", because of {_short(longest.last_error)}"
    return (
        f"Key {longest.key}{others} {_is(len(keys))} parked with {_count(records, 'record')}, the longest since "
        f"{span(longest.age_s)}{why}; everything else goes on, and `esmd redrive {explanation.name} --from parked` "
        "tries them at once."
    )


def _short(error: str) -> str:
    text = " ".join(error.split()).rstrip(".")
    return text if len(text) <= _SHOWN_ERROR else f"{text[:_SHOWN_ERROR]}…"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
