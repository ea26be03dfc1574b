"""What a node knows of the mappings, and what of it disturbs the work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.mappings import Desired, plan
from model.mapping import MappingState
from model.mapping_rules import canonical_document, parse_mapping
from node.runtimes import Catalogue
from statemgr.memory_store import MemoryStore

DOCUMENT: dict[str, Any] = {
    "UUID": "11111111-1111-4111-8111-111111111111",
    "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:orders",
    "FunctionName": "f",
}


@pytest.mark.parametrize(
    ("more", "disturbs"),
    [
        ({"Tags": {"a": "b"}}, False),
        ({"BatchSize": 10, "Enabled": True}, False),
        ({"BatchSize": 5}, True),
        ({"Name": "orders"}, True),
    ],
)
async def test_only_what_the_work_depends_on_disturbs_it(more: dict[str, Any], *, disturbs: bool) -> None:
    """Other tags, or defaults spelled out, are no reason to drain a pump; other parameters, or another name, are."""
    store = MemoryStore()
    catalogue = Catalogue(store)
    mapping = parse_mapping(DOCUMENT, require_name=False)
    (change,) = plan([], [Desired(mapping.id, mapping.name, canonical_document(DOCUMENT))])
    stored = await store.put_mapping(change.record)
    assert await catalogue.read() == {mapping.id: True}
    document = {**DOCUMENT, **more}
    await store.put_mapping(
        replace(stored, name=document.get("Name", mapping.name), document=canonical_document(document))
    )
    assert await catalogue.read() == {mapping.id: disturbs}
    assert catalogue.working_revision(mapping.id) == (2 if disturbs else 1)  # so pumps old and new share their parts
    assert await catalogue.read() == {}
    (present,) = (await store.mappings())[1]
    await store.put_mapping(replace(present, state=MappingState.DELETING))
    assert await catalogue.read() == {mapping.id: False}  # it is the tracker that withdraws the shards


async def test_a_mapping_without_a_name_is_known_by_its_id() -> None:
    """The API makes such mappings."""
    store = MemoryStore()
    catalogue = Catalogue(store)
    mapping = parse_mapping(DOCUMENT, require_name=False)
    (change,) = plan([], [Desired(mapping.id, mapping.name, canonical_document(DOCUMENT))])
    await store.put_mapping(change.record)
    await catalogue.read()
    assert catalogue.mapping(mapping.id) == mapping
    assert catalogue.named(mapping.id) == catalogue.record(mapping.id)
