"""Failure documents in an S3 bucket, under the mapping's own prefix.

A document whose records were delivered is moved, not deleted: to the same key under `esmd-redriven/`, where a lifecycle
rule of the bucket may clean up. Killed in between, it is in both places, and is delivered once more.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pollers.destinations.aws_clients import Arn, NotThereError
from pollers.redriving.archive import Found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import MappingId
    from pollers.destinations.aws_clients import AwsClients

PREFIX = "aws/lambda/"
DONE_PREFIX = "esmd-redriven/"

_LISTED = 1000  # of one call
_COUNTED = 20  # calls: beyond, nobody waits for the number
_AT_ONCE = 8  # objects of one `read`
_AT_ONCE_BYTES = 16 * 1024 * 1024


class S3Archive:
    """`pollers.redriving.archive.Archive`. Objects that were last written before `since_ms` are passed over."""

    def __init__(self, arn: str, mapping: MappingId, clients: AwsClients, *, since_ms: float | None = None) -> None:
        self._bucket = Arn.parse(arn)
        self._prefix = f"{PREFIX}{mapping}/"
        self._clients = clients
        self._since = None if since_ms is None else datetime.fromtimestamp(since_ms / 1000, UTC)
        self._listed: list[dict[str, Any]] = []
        self._after = ""
        self._ended = False

    def __str__(self) -> str:
        return f"S3 bucket {self._bucket.name}"

    async def count(self) -> int | None:
        """Count the objects, unless they are very many."""
        number, after = 0, ""
        for _ in range(_COUNTED):
            page = await self._list(after)
            number += len(page)
            if len(page) < _LISTED:
                return number
            after = page[-1]["Key"]
        return None

    async def read(self) -> list[Found] | None:
        """Get the next objects, in the order of their keys: shard by shard, the oldest first."""
        if not self._listed and not self._ended:
            page = await self._list(self._after)
            self._ended = len(page) < _LISTED
            self._after = page[-1]["Key"] if page else self._after
            self._listed = [one for one in page if self._since is None or one["LastModified"] >= self._since]
        if not self._listed:
            return None if self._ended else []
        found: list[Found] = []
        size = 0
        while self._listed and len(found) < _AT_ONCE and size < _AT_ONCE_BYTES:
            key = self._listed[0]["Key"]
            body = await self._get(key)
            del self._listed[0]  # only now: a failed or cancelled call is repeated
            if body is not None:
                found.append(Found(key.removeprefix(self._prefix), body, key))
                size += len(body)
        return found

    async def remove(self, found: Sequence[Found]) -> None:
        """Move objects."""
        for one in found:
            source = {"Bucket": self._bucket.name, "Key": one.handle}
            if await self._on("copy_object", CopySource=source, Key=DONE_PREFIX + one.handle) is not None:
                await self._on("delete_object", Key=one.handle)

    def keep(self, found: Sequence[Found], *, foreign: bool = False) -> None:
        """Do nothing: they stay, and the listing is past them."""

    async def watch(self) -> None:
        """Return: nobody else takes objects."""

    async def close(self) -> None:
        """Nothing of its own to close."""

    async def _list(self, after: str) -> list[dict[str, Any]]:
        page = await self._call("list_objects_v2", Prefix=self._prefix, MaxKeys=_LISTED, StartAfter=after)
        return list(page.get("Contents", ()))

    async def _get(self, key: str) -> bytes | None:
        answer = await self._on("get_object", Key=key)
        return None if answer is None else answer["Body"]

    async def _on(self, operation: str, **parameters: object) -> Any:
        """Call an operation on one object; None when it is not there any more."""
        try:
            return await self._call(operation, **parameters)
        except NotThereError:
            return None

    async def _call(self, operation: str, **parameters: object) -> Any:
        return await self._clients.call(
            "s3", operation, str(self), region=self._bucket.region, Bucket=self._bucket.name, **parameters
        )
