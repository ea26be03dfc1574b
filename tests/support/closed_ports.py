"""Addresses that refuse connections, for as long as a test needs them to."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def closed_port() -> Iterator[str]:
    """Hold a port of this machine without listening there, so that nobody else can; yield its address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def closed_address() -> Iterator[str]:
    """Return the address of such a port."""
    with closed_port() as address:
        yield address
