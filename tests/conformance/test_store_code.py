"""Every store: the code of functions that the API made (`CodeStore`)."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab

SMALL = b"some code"
LARGE = os.urandom(3 * 1024 * 1024 + 17)


def digest(archive: bytes) -> str:
    """Return the name of an archive."""
    return sha256(archive).hexdigest()


async def test_archives_are_kept_as_they_are(lab: StoreLab, store: Store) -> None:
    """Small or large, put once or several times at once, read by another node."""
    assert await store.code.digests() == set()
    assert await store.code.code(digest(SMALL)) is None
    async with asyncio.TaskGroup() as tasks:
        for archive in (SMALL, LARGE, LARGE):
            tasks.create_task(store.code.put_code(digest(archive), archive))
    other = lab.client()
    assert await other.code.digests() == {digest(SMALL), digest(LARGE)}
    assert await other.code.code(digest(SMALL)) == SMALL
    assert await other.code.code(digest(LARGE)) == LARGE


async def test_code_that_nobody_uses_goes_after_a_while(lab: StoreLab, store: Store) -> None:
    """Not while it is new, or was put again: its function may be about to be made. What is used stays."""
    for archive in (SMALL, LARGE):
        await store.code.put_code(digest(archive), archive)
    await store.code.keep_only([digest(LARGE)], older_than_s=600)
    assert await store.code.digests() == {digest(SMALL), digest(LARGE)}
    await lab.pass_time(1.5)
    await store.code.put_code(digest(SMALL), SMALL)
    await store.code.keep_only([digest(LARGE)], older_than_s=1)
    assert await store.code.digests() == {digest(SMALL), digest(LARGE)}
    await lab.pass_time(0.01)
    await store.code.keep_only([digest(LARGE)], older_than_s=0)
    assert await store.code.digests() == {digest(LARGE)}
    assert await store.code.code(digest(SMALL)) is None
    await store.code.put_code(digest(SMALL), SMALL)
    assert await store.code.code(digest(SMALL)) == SMALL


async def test_a_wiped_store_has_no_code(lab: StoreLab, store: Store) -> None:
    """What is put again afterwards is there again."""
    await store.code.put_code(digest(SMALL), SMALL)
    await lab.wipe()
    assert await store.code.digests() == set()
    await store.code.put_code(digest(SMALL), SMALL)
    assert await store.code.code(digest(SMALL)) == SMALL
