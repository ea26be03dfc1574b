"""How to get into a Kafka cluster: SourceAccessConfigurations (spec section 1.2) as options of the client.

Secrets are resolved anew for every connection attempt, so that a rotated one is picked up. SASL goes over TLS only, as
with AWS; a strong method that fails is never weakened. Nothing of a secret's value appears in an error.
"""

from __future__ import annotations

import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import SourceRefusedError
from model.secret import REFERENCE, SecretText
from pollers.sources.kafka_errors import BAD_CERTIFICATE

if TYPE_CHECKING:
    from model.mapping import KafkaSource, SourceAccess
    from model.secret import SecretResolver

_SASL_MECHANISMS = {
    "BASIC_AUTH": "PLAIN",
    "SASL_SCRAM_256_AUTH": "SCRAM-SHA-256",
    "SASL_SCRAM_512_AUTH": "SCRAM-SHA-512",
}
_CLIENT_CERTIFICATE = "CLIENT_CERTIFICATE_TLS_AUTH"
_ROOT_CA = "SERVER_ROOT_CA_CERTIFICATE"
_IGNORED = frozenset({"VPC_SUBNET", "VPC_SECURITY_GROUP"})  # where AWS's pollers live; ours live where they run


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """Options for aiokafka. The password never shows in a repr."""

    protocol: str = "PLAINTEXT"
    context: ssl.SSLContext | None = None
    mechanism: str | None = None
    username: str | None = None
    password: str | None = None

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that aiokafka's clients and connections share."""
        options: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self.context}
        if self.mechanism is not None:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return options

    def __repr__(self) -> str:
        return f"KafkaSecurity(protocol={self.protocol!r}, mechanism={self.mechanism!r})"


async def resolve_security(source: KafkaSource, resolver: SecretResolver) -> KafkaSecurity:
    """Find the secrets and make the options. MSK without any entry means TLS without authentication.

    Raises `SourceRefusedError` for what cannot work, and what the resolver raises.
    """
    entries = {entry.type: entry for entry in source.access if entry.type not in _IGNORED}
    if problem := _problem(source):
        raise SourceRefusedError(f"SourceAccessConfigurations: {problem}")
    if not entries and source.arn is None:
        return KafkaSecurity()
    context = ssl.create_default_context()
    if authority := entries.pop(_ROOT_CA, None):
        context = _trusting(await _secret(authority, resolver, "certificate"))
    if certificate := entries.pop(_CLIENT_CERTIFICATE, None):
        _present(context, await _secret(certificate, resolver, "certificate", "privateKey"))
    for kind, entry in entries.items():  # at most one is left
        secret = await _secret(entry, resolver, "username", "password")
        return KafkaSecurity(
            protocol="SASL_SSL",
            context=context,
            mechanism=_SASL_MECHANISMS[kind],
            username=secret["username"],
            password=secret["password"],
        )
    return KafkaSecurity(protocol="SSL", context=context)


def _problem(source: KafkaSource) -> str | None:
    """Return what is wrong with the entries taken together."""
    kinds = [entry.type for entry in source.access if entry.type not in _IGNORED]
    for kind in kinds:
        if kind not in {*_SASL_MECHANISMS, _CLIENT_CERTIFICATE, _ROOT_CA}:
            return f"{kind} is not supported"
        if kinds.count(kind) > 1:
            return f"{kind} is given more than once"
    mechanisms = [kind for kind in kinds if kind in _SASL_MECHANISMS]
    return f"choose one of {', '.join(mechanisms)}" if len(mechanisms) > 1 else None


async def _secret(entry: SourceAccess, resolver: SecretResolver, *wanted: str) -> dict[str, str]:
    """Resolve one entry to its JSON object of texts, with the keys named."""
    if entry.uri.startswith("arn:"):
        template = f"${{secretsmanager:{entry.uri}}}"
    elif REFERENCE.search(entry.uri):
        template = entry.uri
    else:
        raise SourceRefusedError(f"{entry.type}: URI must be a secret's ARN or a reference such as ${{file:PATH}}")
    reference = SecretText(template)
    try:
        secret = json.loads(await resolver.resolve(reference))
    except ValueError:  # its message and document may hold the secret: leave them behind
        raise SourceRefusedError(f"{entry.type}: {reference} is not JSON") from None
    if not isinstance(secret, dict) or not all(isinstance(secret.get(key), str) for key in wanted):
        raise SourceRefusedError(f"{entry.type}: {reference} must be a JSON object with {' and '.join(wanted)}")
    return secret


def _trusting(secret: dict[str, str]) -> ssl.SSLContext:
    """Return a context that trusts this authority and no other."""
    try:
        return ssl.create_default_context(cadata=secret["certificate"])
    except (ssl.SSLError, ValueError):
        raise _unusable(_ROOT_CA, "certificate") from None


def _present(context: ssl.SSLContext, secret: dict[str, str]) -> None:
    """Give the context our certificate. The ssl module reads keys from files only: they exist for this call."""
    password = secret.get("privateKeyPassword")
    try:
        with tempfile.TemporaryDirectory(prefix="esmd-") as name:  # readable by this user alone
            chain = Path(name, "chain.pem")
            chain.touch(mode=0o600)
            chain.write_text(f"{secret['certificate'].strip()}\n{secret['privateKey'].strip()}\n")
            # A callable, so that a missing password is an error and not a question on the terminal.
            context.load_cert_chain(chain, password=lambda: password or "")
    except (ssl.SSLError, ValueError):
        raise _unusable(_CLIENT_CERTIFICATE, "certificate, privateKey or privateKeyPassword") from None
    except OSError as exc:
        raise SourceRefusedError(f"{_CLIENT_CERTIFICATE}: no temporary file for the key: {exc.strerror}") from exc


def _unusable(kind: str, part: str) -> SourceRefusedError:
    return SourceRefusedError(f"{kind}: the secret's {part} cannot be used", result=BAD_CERTIFICATE)
