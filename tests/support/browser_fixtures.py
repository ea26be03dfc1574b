"""A real browser for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import Chromium
from tests.support.missing import skip_or_fail
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """Run a browser for a module."""
    try:
        with Chromium() as running:
            yield running
    except ServerUnavailableError as why:
        skip_or_fail(why)
