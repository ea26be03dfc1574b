"""What the Lambda API asks of the node it runs on: its functions, its account, and whether sources are there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from config.settings import ConfiguredMapping
from controlplane.lambda_errors import refused
from invocation.settings import known_timeout_s
from model.errors import RefusedError, SourceRefusedError, UnavailableError
from model.mapping import KafkaSource, KinesisSource
from node.parts import unsupported_settings
from pollers.sources.kinesis_api import NotInStreamError
from pollers.visibility import too_short

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from model.ids import MappingId
    from model.mapping import EventSourceMapping
    from node.parts import Parts

log = structlog.get_logger(__name__)

_LOOK_S = 5.0
_KAFKA_TIMEOUT_S = 840.0  # rule 4 of spec section 1.3


class NodeSurroundings:
    """`controlplane.lambda_mappings.Surroundings`. `settings` returns the present ones: files are read again."""

    def __init__(self, settings: Callable[[], Settings], parts: Parts, *, trusted: bool) -> None:
        self._settings = settings
        self._parts = parts
        self._trusted = trusted

    @property
    def trusted(self) -> bool:
        """Whether callers have proved who they are."""
        return self._trusted

    def mapping_arn(self, mapping: MappingId) -> str:
        """Return the ARN a mapping has in the configured region and account."""
        aws = self._settings().aws
        return f"arn:{aws.partition}:lambda:{aws.region}:{aws.account_id}:event-source-mapping:{mapping}"

    def function_arn(self, function_name: str) -> str:
        """Return the ARN by which a function is named in documents."""
        return self._settings().function_arn(function_name)

    def function_problem(self, mapping: EventSourceMapping) -> str | None:
        """Return why the mapping's function cannot be used here; None if it can."""
        settings = self._settings()
        function = settings.target_for(mapping.function_name)
        if function is None:
            return "Function does not exist"
        timeout_s = known_timeout_s(function)
        if isinstance(mapping.source, KafkaSource) and timeout_s is not None and timeout_s > _KAFKA_TIMEOUT_S:
            return f"Function timeout: {timeout_s:g} seconds exceeds {_KAFKA_TIMEOUT_S:g} seconds, the most for Kafka"
        alone = replace(settings, event_source_mappings=(ConfiguredMapping({}, mapping),), auth=None)
        problems = unsupported_settings(alone)
        return problems[0].rule if problems else None

    async def check_source(self, mapping: EventSourceMapping) -> None:
        """Ask the stream or queue. One that does not answer now is no reason to refuse: the tracker goes on asking.

        Raises `ApiError` in AWS's words.
        """
        try:
            async with asyncio.timeout(_LOOK_S):
                facts = await self._parts.look(mapping)
        except NotInStreamError as exc:
            arn = mapping.source.arn if isinstance(mapping.source, KinesisSource) else ""
            raise refused("InvalidParameterValueException", f"Stream not found: {arn}") from exc
        except SourceRefusedError as exc:
            raise refused("InvalidParameterValueException", exc.result.removeprefix("PROBLEM: ")) from exc
        except RefusedError as exc:
            raise refused("InvalidParameterValueException", str(exc)) from exc
        except (TimeoutError, UnavailableError) as exc:
            log.warning("source.not_asked", mapping=mapping.name, error=str(exc) or "no answer in time")
            return
        function = self._settings().target_for(mapping.function_name)
        if facts is None or function is None or mapping.extensions.visibility_heartbeat:
            return
        short = too_short(facts.visibility_s, known_timeout_s(function))
        if short is not None:
            raise refused("InvalidParameterValueException", short)
