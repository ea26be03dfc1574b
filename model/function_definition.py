"""A function that the API made: what it runs, and how. Its code is kept apart, under the SHA-256 of its archive.

The store has it as one part of what it knows of a function (`model.function_config`), in AWS's names.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import msgspec

from model.function_config import FunctionPart

if TYPE_CHECKING:
    from model.function_config import FunctionTable

DEFAULT_TIMEOUT_S, DEFAULT_MEMORY_MB = 3, 128
"""AWS's own."""


class FunctionDefinition(msgspec.Struct, frozen=True, rename="pascal"):
    """Everything that `CreateFunction` says and this version heeds, or shows again (`role`)."""

    runtime: str
    handler: str
    code_sha256: str  # of the archive, base64 as AWS shows it
    code_size: int  # bytes of the archive
    last_modified: str
    revision_id: str
    timeout: int = DEFAULT_TIMEOUT_S
    memory_size: int = DEFAULT_MEMORY_MB
    description: str = ""
    role: str = ""
    environment: dict[str, str] = {}
    tags: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """The SHA-256 of the archive in hexadecimal: its name in the store and on disk."""
        return b64decode(self.code_sha256).hex()

    def encode(self) -> bytes:
        """Return the document of the store."""
        return msgspec.json.encode(self)


_decode = msgspec.json.Decoder(FunctionDefinition).decode


def definition_of(table: FunctionTable, function: str) -> FunctionDefinition | None:
    """Return how the API has made a function; None: it has not."""
    document = table.document(function, FunctionPart.DEFINITION)
    return None if document is None else _decode(document)


def definitions(table: FunctionTable) -> dict[str, FunctionDefinition]:
    """Return all functions that the API has made, by name."""
    found = ((name, definition_of(table, name)) for name in table.functions)
    return {name: definition for name, definition in found if definition is not None}


def code_sizes(table: FunctionTable, *, without: str = "") -> dict[str, int]:
    """Return the size of each archive that a function has, one function left out. Several may have the same."""
    found = definitions(table).items()
    return {definition.digest: definition.code_size for name, definition in found if name != without}


def shown_digest(digest: str) -> str:
    """Return a hexadecimal SHA-256 as AWS shows it."""
    return b64encode(bytes.fromhex(digest)).decode()
