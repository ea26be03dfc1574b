"""The one validator of event source mappings: for YAML, for templates and for the AWS-compatible API.

Pure: documents with AWS's property names in, `EventSourceMapping` out, or every broken rule at once. Left to those who
know the live facts: whether stream, queue, topic and function exist, the queue's visibility timeout, the function's
timeout (`config` checks it for the functions it lists), the number of partitions.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from model.problem import InvalidConfigurationError, Problem
from model.rules.build import build_mapping, mapping_id
from model.rules.checking import INVALID, Checker, read_timestamp
from model.rules.cross_field import check_cross_fields, is_secret_reference
from model.rules.parameters import (
    EXTENSION_PARAMETERS,
    KINESIS_ARN,
    MSK_ARN,
    NETWORK_TYPES,
    PARAMETERS,
    SQS_ARN,
    Source,
    extensions_shape,
)
from model.rules.together import check_together, duplicate_message, same_function
from model.rules.wording import NO_SOURCE, AwsVoice, api_error, unknown_key, unsupported, wrong_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.mapping import EventSourceMapping

__all__ = [
    "api_error",
    "canonical_document",
    "check_together",
    "duplicate_message",
    "mapping_id",
    "parse_mapping",
    "same_function",
]


def parse_mapping(
    document: Mapping[str, object], *, path: str = "", require_name: bool = True, now: datetime | None = None
) -> EventSourceMapping:
    """Return the mapping a document describes, complete with defaults.

    Its id is the document's `UUID`, else made from `Name`; at least one of them must be there. `path` is the
    document's place in its file. A StartingPositionTimestamp is held against `now` where that is given.
    Raises `InvalidConfigurationError` with all problems.
    """
    checker = Checker(AwsVoice(), path)
    if not isinstance(document, dict):
        checker.report((), wrong_kind("a mapping", document))
        raise InvalidConfigurationError(checker.problems)
    given = normal_spelling(document)
    source = _find_source(given, checker)
    values = _check_parameters(given, source, checker)
    if require_name and given.get("Name") is None:
        checker.report(("Name",), "is required: the mapping's stable identity in this file")
    elif given.get("Name") is None and given.get("UUID") is None:
        checker.report((), "Name or UUID is required")
    broken = frozenset(name for name in PARAMETERS if given.get(name) is not None and name not in values)
    check_cross_fields(values, source, checker.report, broken=broken, now=now)
    if checker.problems or source is None:
        raise InvalidConfigurationError(checker.problems or [Problem(path, NO_SOURCE)])
    return build_mapping(values, source)


def canonical_document(document: Mapping[str, object]) -> bytes:
    """Return the document as the store keeps it: JSON that is the same for the same content, however it was written.

    Sorted keys, absent instead of null, times as epoch seconds. Raises `InvalidConfigurationError` for a document
    that holds a secret where a reference belongs; otherwise it takes what `parse_mapping` takes.
    """
    given = normal_spelling(document)
    moment = read_timestamp(given.get("StartingPositionTimestamp"))
    if moment is not None:
        given["StartingPositionTimestamp"] = _epoch(moment)
    entries = given.get("SourceAccessConfigurations")
    for i, entry in enumerate(entries if isinstance(entries, (list, tuple)) else []):
        uri = entry.get("URI") if isinstance(entry, dict) else entry
        if uri is not None and not _names_a_place(uri):
            at = f"SourceAccessConfigurations[{i}].URI"
            raise InvalidConfigurationError([Problem(at, "must be a reference to a secret, never the secret itself")])
    plain = _plain(given)
    if isinstance(plain, dict) and given.get("input") is not None:
        plain["input"] = given["input"]  # what is null in it is meant
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def normal_spelling(document: Mapping[str, object]) -> dict[str, Any]:
    """Return a copy that spells what CloudFormation spells differently as the API does."""
    given: dict[str, Any] = dict(document)
    if "KmsKeyArn" in given and "KMSKeyArn" not in given:
        given["KMSKeyArn"] = given.pop("KmsKeyArn")
    servers = given.get("SelfManagedEventSource")
    if isinstance(servers, dict) and isinstance(servers.get("Endpoints"), dict):
        endpoints = dict(servers["Endpoints"])
        if "KafkaBootstrapServers" in endpoints and "KAFKA_BOOTSTRAP_SERVERS" not in endpoints:
            endpoints["KAFKA_BOOTSTRAP_SERVERS"] = endpoints.pop("KafkaBootstrapServers")
        given["SelfManagedEventSource"] = {**servers, "Endpoints": endpoints}
    tags = given.get("Tags")
    if isinstance(tags, list) and all(isinstance(tag, dict) and tag.keys() == {"Key", "Value"} for tag in tags):
        pairs = [(tag["Key"], tag["Value"]) for tag in tags]
        if all(isinstance(key, str) for key, _ in pairs) and len({key for key, _ in pairs}) == len(pairs):
            given["Tags"] = dict(pairs)
    return given


def _find_source(given: dict[str, Any], checker: Checker) -> Source | None:
    arn, servers = given.get("EventSourceArn"), given.get("SelfManagedEventSource")
    if given.get("schedule") is not None:
        if arn is None and servers is None:
            return Source.SCHEDULE
        checker.report(("schedule",), "a mapping has one source: give either schedule or an event source, not both")
        return None
    if arn is None and servers is None:
        checker.report((), NO_SOURCE)
        return None
    if arn is not None and servers is not None:
        checker.report(("SelfManagedEventSource",), "give either EventSourceArn or SelfManagedEventSource, not both")
        return None
    if servers is not None:
        return Source.KAFKA
    return _source_of_arn(arn, checker)


def _source_of_arn(arn: object, checker: Checker) -> Source | None:
    at = ("EventSourceArn",)
    if not isinstance(arn, str):
        return None  # its shape is reported with the others
    parts = arn.split(":", 5)
    service = parts[2] if len(parts) > 5 and parts[0] == "arn" else None  # noqa: PLR2004 - the parts of an ARN
    sqs = SQS_ARN.fullmatch(arn)
    if sqs:
        return Source.FIFO if sqs[1] else Source.SQS
    if KINESIS_ARN.fullmatch(arn):
        return Source.KINESIS
    if MSK_ARN.fullmatch(arn):
        return Source.MSK
    forms = {
        "kinesis": (Source.KINESIS, "a stream, arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, or of a consumer of one"),
        "sqs": (Source.SQS, "a queue, arn:aws:sqs:REGION:ACCOUNT:NAME"),
        "kafka": (Source.MSK, "an MSK cluster, arn:aws:kafka:REGION:ACCOUNT:cluster/NAME/UUID, or of a VPC connection"),
    }
    if service in forms:
        source, form = forms[service]
        checker.report(at, f"must be the ARN of {form}")
        return source
    what = f"{service or 'this'} is no source of esmd: it reads Kinesis, SQS, MSK and self-managed Kafka"
    checker.report(at, f"{NO_SOURCE} {what}" if service else f"{NO_SOURCE} This is not an ARN")
    return None


def _check_parameters(given: dict[str, Any], source: Source | None, checker: Checker) -> dict[str, Any]:
    values: dict[str, Any] = {}
    checker.unknown_keys(given, PARAMETERS, ())
    for name, parameter in PARAMETERS.items():
        value = given.get(name)
        if value is None:
            if source in parameter.required or (source is None and name == "FunctionName"):
                checker.report((name,), AwsVoice().missing((name,)))
            continue
        if name in ("EventSourceArn", "SelfManagedEventSource") and source is None and isinstance(value, (str, dict)):
            continue  # reported while looking for the source
        if not parameter.sources or (source is not None and source not in parameter.sources):
            checker.report((name,), unsupported(name))
            continue
        if name == "extensions":
            checked = _check_extensions(value, source, checker)
        else:
            if name == "DestinationConfig":
                value = _without_on_success(value, checker)
            checked = checker.check(parameter.shape_for(source), value, (name,))
        if checked is not INVALID:
            values[name] = checked
    return values


def _check_extensions(value: object, source: Source | None, checker: Checker) -> object:
    if not isinstance(value, dict):
        return checker.table(extensions_shape(source), value, ("extensions",))
    fitting: dict[object, object] = {}
    for key, item in value.items():
        row = EXTENSION_PARAMETERS.get(key) if isinstance(key, str) else None
        if row is not None and source is not None and source not in row.sources:
            mend = "; use ParallelizationFactor" if (key, source) == ("parallelization_factor", Source.KINESIS) else ""
            checker.report(("extensions", key), f"does not apply to this kind of source{mend}")
        elif row is None and isinstance(key, str):
            checker.report(("extensions", key), unknown_key(key, EXTENSION_PARAMETERS))
        else:
            fitting[key] = item
    return checker.table(extensions_shape(source), fitting, ("extensions",))


def _without_on_success(value: object, checker: Checker) -> object:
    if not isinstance(value, dict) or "OnSuccess" not in value:
        return value
    if value["OnSuccess"] is not None:
        checker.report(("DestinationConfig", "OnSuccess"), unsupported("DestinationConfig"))
    return {key: item for key, item in value.items() if key != "OnSuccess"}


def _names_a_place(uri: object) -> bool:
    return isinstance(uri, str) and (is_secret_reference(uri) or uri.startswith(tuple(NETWORK_TYPES.values())))


def _plain(value: object) -> object:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            return [_plain(item) for item in value]
        case date():  # a datetime is one too
            moment = read_timestamp(value)
            return None if moment is None else _epoch(moment)
        case _:
            return value


def _epoch(moment: datetime) -> int | float:
    seconds = moment.timestamp()
    return int(seconds) if seconds.is_integer() else seconds
