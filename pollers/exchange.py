"""How a batch becomes an event, and what the answer to it means, for mappings without windows. Pure.

`pollers.windowed` does the same for those with tumbling windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pollers.partial import read_response

if TYPE_CHECKING:
    from model.outcome import Delivered, Outcome
    from model.record import Batch
    from pollers.ports import Envelope


class PlainExchange:
    """Events are the records alone. `pollers.delivery.Exchange`."""

    def __init__(self, envelope: Envelope, *, partial_responses: bool) -> None:
        self.event = envelope.event
        self.overhead = envelope.overhead
        self._parse_item_id = envelope.parse_item_id
        self._partial_responses = partial_responses

    def name(self, batch: Batch) -> str:
        """Name the batch by its records."""
        return batch.records.span

    def read(self, answered: Delivered, batch: Batch) -> Outcome:
        """Look for failed items where the mapping asks for that."""
        return (
            read_response(answered, batch.records.item_ids, self._parse_item_id)
            if self._partial_responses
            else answered
        )

    def owed(self) -> Batch | None:
        """Owe nothing besides the records."""
        return None
