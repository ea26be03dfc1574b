"""The sections of a configuration file: their shapes, and how sections from several places become settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.functions import ENDPOINT
from config.settings import (
    AsyncInvokeSettings,
    AuthSettings,
    AwsSettings,
    ControlPlaneSettings,
    EmbeddedAws,
    EmbeddedKafka,
    EmbeddedRedis,
    EmbeddedSettings,
    InvokeSettings,
    LeasingSettings,
    RateLimitSettings,
    TlsSettings,
)
from invocation.settings import Isolation, SandboxSettings
from model.concurrency import DEFAULT_ACCOUNT_CONCURRENCY, LEAST_UNRESERVED
from model.function_rules import MAX_CONCURRENCY
from model.rules.parameters import TOPIC
from model.rules.shapes import Boolean, Choice, Either, Field, Integer, ListOf, MapOf, Number, Table, Text, text
from model.secret import SecretText

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECRET = Text(1, 8192, secret=True)
_REDIS = text(
    r"embedded|\$\{(env|file|secretsmanager):[^}]+\}|[a-z][a-z0-9+.-]*://\S+",
    "`embedded` or a URL such as redis://HOST:PORT/0",
    secret=True,
)
_LISTEN = text(
    r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9_.-]*):(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])",
    "HOST:PORT with a port up to 65535",
)
_RATE = Number(0, 1_000_000)
_TOPIC = Text(1, 249, TOPIC, "a topic name")

SECTIONS: Mapping[str, Field] = {
    section.name: section
    for section in (
        Field("redis", Either("embedded", Table((Field("url", _REDIS, "The Redis all nodes share", required=True),))),
              "The fleet's shared memory; `embedded` (the default) starts a private redis-server"),
        Field("listen", _LISTEN, "API, metrics and console; other than loopback needs auth (default 127.0.0.1:9001)"),
        Field("data_dir", Text(1, 4096), "What a node keeps on disk (default .esmd)"),
        Field("leasing", Table((Field("ttl", Number(3, 3600), "Seconds a node may be silent before its shards move"),)),
              "The leasing service"),
        Field("drain_timeout", Number(0, 86400), "Seconds a stopping node may take to finish (default 30)"),
        Field("aws", Table((
            Field("region", text(r"[a-z]{2}(-[a-z]+)+-\d", "a region such as us-east-1"), "Region"),
            Field("account_id", text(r"\d{12}", "twelve digits in quotes"), "Account of ARNs made here"),
            Field("endpoint_url", ENDPOINT, "For emulators only"),
        )), "AWS"),
        Field("invoke", Table((
            Field("endpoint", ENDPOINT, "Lambda-compatible Invoke API for functions that are not listed"),
            Field("account_concurrency", Integer(LEAST_UNRESERVED, MAX_CONCURRENCY),
                  "Invocations at one time in the whole fleet (default 1000)"),
        )), "Invoking functions"),
        Field("async_invoke", Table((
            Field("queue", Integer(1, 1_000_000), "MB of events that may wait, in the whole fleet (default 256)"),
        )), "Asynchronous invocations"),
        Field("control_plane", Table((
            Field("create_functions", Boolean(), "May callers of the Lambda API bring code that runs (default false)"),
            Field("isolation", Choice(("process", "bubblewrap")), "How much such functions are kept apart"),
            Field("network", Boolean(), "With bubblewrap: may they use the network (default false)"),
            Field("rate_limits", Table((
                Field("reads", _RATE, "Reading (default 100)"),
                Field("changes", _RATE, "Changing (default 30)"),
                Field("invokes", _RATE, "Invoking functions (default 0)"),
            )), "Requests a second of one caller, ten times as many at once; 0: no limit"),
        )), "Functions made by the Lambda API, and how often callers may ask"),
        Field("sandboxes", Table((
            Field("environments", Integer(1, 100000), "Most environments at once (default 32 for each CPU)"),
            Field("memory", Integer(128, 100_000_000), "MB of all of them (default three quarters of the machine's)"),
            Field("lease", Number(1, 604800), "Seconds an environment is used at most (default 21600)"),
            Field("idle", Number(1, 604800), "Seconds an environment waits for its next event (default 300)"),
        )), "Execution environments of functions with `handler` on this node"),
        Field("embedded", Table((
            Field("redis", Table((
                Field("fsync", Choice(("everysec", "always")), "When its file is on the disk (default everysec)"),
            )), "The private redis-server, where `redis` is embedded"),
            Field("kafka", Table((Field("topics", MapOf(_TOPIC, Integer(1, 1000), 1000), "Partitions by topic"),)),
                  "A Kafka broker"),
            Field("aws", Table(()), "Kinesis, SQS, SNS and S3 in one process"),
        )), "Servers to start as children, for a laptop or a test"),
        Field("auth", Table((
            Field("tokens", ListOf(_SECRET, 1, 1000), "Bearer tokens, or sha256:HEX of them"),
            Field("read_only_tokens", ListOf(_SECRET, 1, 1000), "The same; these may look and change nothing"),
            Field("access_keys", MapOf(text(r"[A-Za-z0-9_]{1,128}", "an access key id"), _SECRET, 1000),
                  "SigV4: secret keys by access key id"),
            Field("failed_logins", _RATE, "Failed proofs a second from one address (default 5); 0: no limit"),
        )), "Who may use the HTTP surface"),
        Field("tls", Table((
            Field("certificate", Text(1, 4096), "A PEM file: certificate and chain", required=True),
            Field("key", Text(1, 4096), "A PEM file: its private key", required=True),
        )), "HTTPS on `listen`"),
    )
}  # fmt: skip
"""Sections whose value stands for the whole node; `functions` and `event_source_mappings` add up instead."""

FILE_KEYS = (*SECTIONS, "functions", "event_source_mappings")


def with_empty_servers(value: object) -> object:
    """Take `embedded: {aws: }` as a wish for that server, though it says nothing about it."""
    if not isinstance(value, dict):
        return value
    return {key: {} if item is None else item for key, item in value.items()}


def overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections of which the upper ones win, key by key where both are tables."""
    merged = dict(lower)
    for name, value in upper.items():
        below = merged.get(name)
        merged[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach HOST:PORT."""
    host = listen.rpartition(":")[0].strip("[]").lower()
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def build_sections(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `Settings` that checked sections amount to."""
    built: dict[str, Any] = {"aws": AwsSettings(**sections.get("aws", {}))}
    redis = sections.get("redis", "embedded")
    url = redis if isinstance(redis, str) else redis["url"]
    built["redis_url"] = None if url == "embedded" else SecretText(url)
    if "listen" in sections:
        built["listen"] = sections["listen"]
    if "data_dir" in sections:
        built["data_dir"] = Path(sections["data_dir"])
    if "ttl" in sections.get("leasing", {}):
        built["leasing"] = LeasingSettings(float(sections["leasing"]["ttl"]))
    if "drain_timeout" in sections:
        built["drain_timeout_s"] = float(sections["drain_timeout"])
    invoke = sections.get("invoke", {})
    endpoint, account = invoke.get("endpoint"), invoke.get("account_concurrency", DEFAULT_ACCOUNT_CONCURRENCY)
    built["invoke"] = InvokeSettings(endpoint.rstrip("/") if endpoint else None, account)
    plane = sections.get("control_plane", {})
    built["control_plane"] = ControlPlaneSettings(
        create_functions=plane.get("create_functions", False),
        isolation=Isolation(plane.get("isolation", Isolation.PROCESS)),
        network=plane.get("network", False),
    )
    limits = dict(plane.get("rate_limits", {}))
    if "failed_logins" in sections.get("auth", {}):
        limits["failed_logins"] = sections["auth"]["failed_logins"]
    built["rate_limits"] = RateLimitSettings(**{name: float(rate) for name, rate in limits.items()})
    built["sandboxes"] = _sandboxes(sections.get("sandboxes", {}))
    if "queue" in sections.get("async_invoke", {}):
        built["async_invoke"] = AsyncInvokeSettings(sections["async_invoke"]["queue"])
    embedded = sections.get("embedded", {})
    built["embedded"] = EmbeddedSettings(
        redis=EmbeddedRedis(**embedded.get("redis", {})),
        kafka=EmbeddedKafka(embedded["kafka"].get("topics", {})) if "kafka" in embedded else None,
        aws=EmbeddedAws() if "aws" in embedded else None,
    )
    if "auth" in sections:
        auth = sections["auth"]
        tokens, readers = (tuple(map(SecretText, auth.get(name, []))) for name in ("tokens", "read_only_tokens"))
        keys = {key: SecretText(secret) for key, secret in auth.get("access_keys", {}).items()}
        built["auth"] = AuthSettings(tokens, readers, keys)
    if "tls" in sections:
        built["tls"] = TlsSettings(Path(sections["tls"]["certificate"]), Path(sections["tls"]["key"]))
    return built


def _sandboxes(given: Mapping[str, Any]) -> SandboxSettings:
    defaults = SandboxSettings()
    return SandboxSettings(
        environments=given.get("environments"),
        memory_mb=given.get("memory"),
        lease_s=float(given.get("lease", defaults.lease_s)),
        idle_s=float(given.get("idle", defaults.idle_s)),
    )
