"""What Terraform's AWS provider asks of Lambda for an `aws_lambda_event_source_mapping`, call by call.

After hashicorp/terraform-provider-aws, internal/service/lambda/event_source_mapping.go at 0603f3b6: the members it
sends, the states its waiters take for under way and for reached, what it reads back, and so what a plan would show.
Its tags are seen to before an update, with calls of their own, and an update is sent even if nothing else changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOK_S = 0.02
_LIMIT_S = 60.0
CREATING = frozenset({"Creating", "Disabling", "Enabling"})
UPDATING = frozenset({"Disabling", "Enabling", "Updating"})
REACHED = frozenset({"Disabled", "Enabled"})

MEMBERS = {
    "batch_size": "BatchSize",
    "bisect_batch_on_function_error": "BisectBatchOnFunctionError",
    "destination_config": "DestinationConfig",
    "enabled": "Enabled",
    "event_source_arn": "EventSourceArn",
    "filter_criteria": "FilterCriteria",
    "function_name": "FunctionName",
    "function_response_types": "FunctionResponseTypes",
    "kms_key_arn": "KMSKeyArn",
    "maximum_batching_window_in_seconds": "MaximumBatchingWindowInSeconds",
    "maximum_record_age_in_seconds": "MaximumRecordAgeInSeconds",
    "maximum_retry_attempts": "MaximumRetryAttempts",
    "parallelization_factor": "ParallelizationFactor",
    "scaling_config": "ScalingConfig",
    "self_managed_event_source": "SelfManagedEventSource",
    "self_managed_kafka_event_source_config": "SelfManagedKafkaEventSourceConfig",
    "source_access_configuration": "SourceAccessConfigurations",
    "starting_position": "StartingPosition",
    "topics": "Topics",
    "tumbling_window_in_seconds": "TumblingWindowInSeconds",
}
"""Attributes of the resource. Blocks are given here as the API has them."""

COMPUTED = frozenset({
    "maximum_record_age_in_seconds", "maximum_retry_attempts", "parallelization_factor",
    "self_managed_kafka_event_source_config",
})  # fmt: skip
"""What the API says of these is no difference where the configuration says nothing."""

EMPTIED = frozenset({"filter_criteria", "scaling_config"})
"""Blocks that are sent empty once they are taken out; others are then not sent at all."""


class UnexpectedStateError(AssertionError):
    """A state that the provider's waiter takes neither for under way nor for reached: it gives up."""


@dataclass
class TerraformMapping:
    """One resource. `config` is what stands in the user's files; absent attributes are not in it."""

    client: Any
    config: dict[str, Any]
    uuid: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)  # that waiters saw, each once in a row

    async def create(self) -> None:
        """Create and wait."""
        members = {MEMBERS[name]: value for name, value in self.config.items()}
        tags = {"Tags": self.tags} if self.tags else {}
        made = await self._call("create_event_source_mapping", **{"Enabled": True, **members, **tags})
        self.uuid = made["UUID"]
        await self._wait(CREATING)

    async def update(self, config: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Apply a changed configuration."""
        if tags is not None:
            await self._retag(dict(tags))
        names = {**self.config, **config}.keys()
        changed = {name for name in names if self.config.get(name) != config.get(name)}
        members = {MEMBERS[name]: config.get(name, {}) for name in changed if name in config or name in EMPTIED}
        self.config = dict(config)
        await self._call("update_event_source_mapping", UUID=self.uuid, **members)
        await self._wait(UPDATING)

    async def _retag(self, tags: dict[str, str]) -> None:
        arn = (await self.read())["EventSourceMappingArn"]
        removed = sorted(self.tags.keys() - tags.keys())
        added = {key: value for key, value in tags.items() if self.tags.get(key) != value}
        if removed:
            await self._call("untag_resource", Resource=arn, TagKeys=removed)
        if added:
            await self._call("tag_resource", Resource=arn, Tags=added)
        self.tags = tags

    async def read(self) -> dict[str, Any]:
        """Return the mapping, as a refresh or an import by UUID reads it, with its tags."""
        found: dict[str, Any] = await self._call("get_event_source_mapping", UUID=self.uuid)
        found["Tags"] = (await self._call("list_tags", Resource=found["EventSourceMappingArn"])).get("Tags", {})
        return found

    async def delete(self) -> None:
        """Delete and wait; a mapping that is in use is asked again."""
        while True:
            try:
                await self._call("delete_event_source_mapping", UUID=self.uuid)
                break
            except self.client.exceptions.ResourceInUseException:
                await asyncio.sleep(_LOOK_S)
            except self.client.exceptions.ResourceNotFoundException:
                return
        await self._wait(frozenset({"Deleting"}), reached=frozenset())

    async def _wait(self, pending: frozenset[str], reached: frozenset[str] = REACHED) -> None:
        """Look until a state is reached; without any, until the mapping is gone."""
        async with asyncio.timeout(_LIMIT_S):
            while True:
                try:
                    state = (await self._call("get_event_source_mapping", UUID=self.uuid))["State"]
                except self.client.exceptions.ResourceNotFoundException:
                    if reached:
                        raise
                    return
                if self.states[-1:] != [state]:
                    self.states.append(state)
                if state in reached:
                    return
                if state not in pending:
                    raise UnexpectedStateError(f"{state}, wanted {sorted(reached)}, under way {sorted(pending)}")
                await asyncio.sleep(_LOOK_S)

    async def plan(self) -> dict[str, tuple[object, object]]:
        """Return what a plan would show: attributes with what the configuration says and what the API says."""
        found = await self.read()
        found["FunctionName"] = found["FunctionArn"].rpartition(":")[2]  # the provider takes both for the same
        found["Enabled"] = found["State"] in ("Enabled", "Enabling")
        shown = {}
        for name, member in MEMBERS.items():
            here, there = self.config.get(name, True if name == "enabled" else None), found.get(member)
            if here is None and (name in COMPUTED or self._suppressed(name, there)):
                continue
            if _plain(here) != _plain(there):
                shown[name] = (here, there)
        if found["Tags"] != self.tags:
            shown["tags"] = (self.tags, found["Tags"])
        return shown

    def _suppressed(self, name: str, there: object) -> bool:
        """Whether a difference from nothing is none: the default size of batches, an empty block."""
        if name == "batch_size":
            return there == (10 if ":sqs:" in self.config.get("event_source_arn", "") else 100)
        return name == "destination_config" and there in (None, {}, {"OnFailure": {}})

    async def _call(self, operation: str, **members: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client, operation), **members)


def _plain(value: object) -> object:
    """Return a value as the provider compares it: what is empty is nothing, sets have no order."""
    if isinstance(value, list):
        return sorted(map(str, value)) or None
    return value or None
