"""SourceAccessConfigurations as client options."""

from __future__ import annotations

import datetime as dt
import json
import os
import ssl
import tempfile
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from model.errors import SourceRefusedError
from model.mapping import KafkaSource, SourceAccess
from pollers.sources.kafka_errors import BAD_CERTIFICATE
from pollers.sources.kafka_security import KafkaSecurity, resolve_security
from tests.support.kafka_source import Secrets

if TYPE_CHECKING:
    from pathlib import Path

ARN = "arn:aws:secretsmanager:us-east-1:1:secret:kafka-abc"
LOGIN = '{"username": "u", "password": "planted-secret"}'


def source(*access: tuple[str, str], arn: str | None = None) -> KafkaSource:
    """Make a source with these entries."""
    return KafkaSource("t", "g", ("b:9092",), arn, tuple(SourceAccess(*entry) for entry in access))


def certificate(password: str | None = None) -> dict[str, str]:
    """Make a self-signed certificate and key, as the secret holds them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = {
        "certificate": made.public_bytes(pem).decode(),
        "privateKey": key.private_bytes(pem, pkcs8, encryption).decode(),
    }
    return secret if password is None else {**secret, "privateKeyPassword": password}


async def test_no_entries_mean_plaintext_unless_it_is_msk() -> None:
    """A self-managed cluster without entries is spoken to in the clear, MSK over TLS."""
    assert (await resolve_security(source(), Secrets())).options() == {
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }
    assert (await resolve_security(source(arn="arn:aws:kafka:x"), Secrets())).protocol == "SSL"


async def test_where_the_pollers_run_is_no_security() -> None:
    """VPC entries are accepted and change nothing."""
    entries = source(("VPC_SUBNET", "subnet:1"), ("VPC_SECURITY_GROUP", "security_group:1"))
    assert (await resolve_security(entries, Secrets())).protocol == "PLAINTEXT"


@pytest.mark.parametrize(
    ("kind", "mechanism"),
    [("BASIC_AUTH", "PLAIN"), ("SASL_SCRAM_256_AUTH", "SCRAM-SHA-256"), ("SASL_SCRAM_512_AUTH", "SCRAM-SHA-512")],
)
@pytest.mark.parametrize(
    ("uri", "name"), [(ARN, ARN), (f"${{secretsmanager:{ARN}}}", ARN), ("${file:/run/k}", "/run/k")]
)
async def test_sasl_goes_over_tls(kind: str, mechanism: str, uri: str, name: str) -> None:
    """Every SASL method uses TLS with the server's name checked; a bare ARN is a secret's."""
    security = await resolve_security(source((kind, uri)), Secrets(**{name: LOGIN}))
    assert (security.protocol, security.mechanism) == ("SASL_SSL", mechanism)
    assert (security.username, security.password) == ("u", "planted-secret")
    assert security.context is not None
    assert security.context.check_hostname
    assert security.options()["sasl_plain_password"] == "planted-secret"
    assert "planted-secret" not in repr(security)


@pytest.mark.parametrize("password", [None, "key-password"])
async def test_client_certificates(password: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A certificate with a plain or an encrypted key is presented, and its file is gone at once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    secrets = Secrets(c=json.dumps(certificate(password)), ca=json.dumps(certificate()))
    entries = source(("CLIENT_CERTIFICATE_TLS_AUTH", "${env:c}"), ("SERVER_ROOT_CA_CERTIFICATE", "${env:ca}"))
    security = await resolve_security(entries, secrets)
    assert security.protocol == "SSL"
    assert security.context is not None
    assert security.context.cert_store_stats()["x509"] == 1  # the one given, none of the system's
    assert security.context.verify_mode is ssl.CERT_REQUIRED
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # a look at a test directory


async def test_unusable_certificates_have_awss_text() -> None:
    """A key of another certificate, a wrong password and garbage are refused without showing the key."""
    good, locked = certificate(), certificate("right")
    unusable = [
        {**good, "privateKey": certificate()["privateKey"]},
        {**locked, "privateKeyPassword": "wrong"},
        {"certificate": locked["certificate"], "privateKey": locked["privateKey"]},
        {"certificate": "planted-secret", "privateKey": "planted-secret"},
    ]
    for secret in unusable:
        with pytest.raises(SourceRefusedError) as caught:
            await resolve_security(source(("CLIENT_CERTIFICATE_TLS_AUTH", "${env:c}")), Secrets(c=json.dumps(secret)))
        assert caught.value.result == BAD_CERTIFICATE
        assert "planted-secret" not in str(caught.value)
    with pytest.raises(SourceRefusedError) as caught:
        await resolve_security(source(("SERVER_ROOT_CA_CERTIFICATE", "${env:c}")), Secrets(c='{"certificate": "x"}'))
    assert caught.value.result == BAD_CERTIFICATE


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("OAUTHBEARER_AUTH", ARN)], "OAUTHBEARER_AUTH is not supported"),
        ([("BASIC_AUTH", ARN), ("SASL_SCRAM_512_AUTH", ARN)], "choose one of BASIC_AUTH, SASL_SCRAM_512_AUTH"),
        ([("BASIC_AUTH", ARN), ("BASIC_AUTH", ARN)], "more than once"),
        ([("BASIC_AUTH", "planted-secret")], "URI must be"),
        ([("BASIC_AUTH", "${env:text}")], "is not JSON"),
        ([("BASIC_AUTH", "${env:list}")], "username and password"),
        ([("BASIC_AUTH", "${env:half}")], "username and password"),
    ],
)
async def test_what_cannot_work_is_refused(entries: list[tuple[str, str]], words: str) -> None:
    """Each mistake is named with its entry, and no secret is shown, nor kept in the error's causes."""
    secrets = Secrets(text="planted-secret", list='["planted-secret"]', half='{"password": "planted-secret"}')
    with pytest.raises(SourceRefusedError, match=words) as caught:
        await resolve_security(source(*entries), secrets)
    assert "planted-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_plain_security_shows_no_password() -> None:
    """A repr in a traceback gives nothing away."""
    assert "planted" not in repr(KafkaSecurity(mechanism="PLAIN", username="planted", password="planted"))
