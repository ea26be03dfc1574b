"""What aiokafka's errors mean to us: the one place where they are translated.

An error that will repeat until someone acts becomes `SourceRefusedError` with AWS's LastProcessingResult text (spec
section 7.4); everything else is `SourceUnavailableError`, which passes.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from aiokafka import errors as kafka

from model.errors import RefusedError, SourceRefusedError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

SASL_FAILED = "SASL authentication failed"
NOT_AUTHORIZED = "Cluster failed to authorize Lambda"
CLIENT_REJECTED = "Server failed to authenticate Lambda"
SERVER_REJECTED = "Lambda failed to authenticate server"
BAD_CERTIFICATE = "Provided certificate or private key is invalid"

_SASL = (
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.IllegalSaslStateError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
)
_AUTHORIZATION = (
    kafka.ClusterAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.TopicAuthorizationFailedError,
)
_NO_TOPIC = (kafka.UnknownTopicOrPartitionError, kafka.InvalidTopicError)
_UNREADABLE = (kafka.CorruptRecordException, kafka.RecordTooLargeError, kafka.UnsupportedCodecError, UnicodeDecodeError)


def translate(exc: BaseException, what: str) -> SourceRefusedError | SourceUnavailableError:
    """Return what `exc` means for the work on `what`, a topic and its brokers. Raise it `from exc`."""
    for cause in _chain(exc):
        if isinstance(cause, SourceRefusedError | SourceUnavailableError):
            return cause
        refusal = _refusal(cause, what)
        if refusal is not None:
            return refusal
    detail = str(exc) or type(exc).__name__
    return SourceUnavailableError(f"{what}: {detail}")


def again(trouble: SourceRefusedError | SourceUnavailableError) -> SourceRefusedError | SourceUnavailableError:
    """Return a fresh copy of a standing error, so that raising it to many readers does not grow one traceback."""
    if isinstance(trouble, SourceRefusedError):
        return SourceRefusedError(str(trouble), result=trouble.result)
    return SourceUnavailableError(str(trouble))


def _refusal(exc: BaseException, what: str) -> SourceRefusedError | None:
    detail = str(exc) or type(exc).__name__
    refusal: SourceRefusedError | None = None
    if isinstance(exc, RefusedError):
        refusal = SourceRefusedError(f"{what}: {detail}")
    elif isinstance(exc, _SASL):
        refusal = SourceRefusedError(f"{what}: the brokers refuse these credentials: {detail}", result=SASL_FAILED)
    elif isinstance(exc, _AUTHORIZATION):
        hint = "it needs Describe and Read on the topic and on the consumer group"
        refusal = SourceRefusedError(f"{what}: this user is not authorised ({detail}); {hint}", result=NOT_AUTHORIZED)
    elif isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        refusal = _tls(exc, what, detail)
    elif isinstance(exc, _NO_TOPIC):
        refusal = SourceRefusedError(f"{what}: no such topic; create it, or correct Topics in the mapping")
    elif isinstance(exc, _UNREADABLE):
        refusal = SourceRefusedError(f"{what}: a record cannot be read: {detail}")
    return refusal


def _tls(exc: ssl.SSLError, what: str, detail: str) -> SourceRefusedError:
    if isinstance(exc, ssl.SSLCertVerificationError):
        hint = "give its authority as SERVER_ROOT_CA_CERTIFICATE if it is a private one"
        return SourceRefusedError(
            f"{what}: the brokers' certificate is not trusted ({detail}); {hint}", result=SERVER_REJECTED
        )
    if "ALERT" in (exc.reason or ""):
        return SourceRefusedError(f"{what}: the brokers refuse our certificate: {detail}", result=CLIENT_REJECTED)
    hint = "is this port a TLS port?"
    return SourceRefusedError(f"{what}: no TLS connection is possible ({detail}); {hint}", result=SERVER_REJECTED)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield the error and what caused it, looking into groups."""
    todo, seen = [exc], set[int]()
    while todo:
        current = todo.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            todo.extend(current.exceptions)
        todo.extend(cause for cause in (current.__cause__, current.__context__) if cause is not None)
