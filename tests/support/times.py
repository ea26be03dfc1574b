"""Times that tests agree on."""

from __future__ import annotations

from datetime import UTC, datetime

EPOCH_2026 = datetime(2026, 1, 1, tzinfo=UTC)
