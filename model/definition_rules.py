"""What may be said of a function's code and how it runs: shapes and rules of the Lambda API, and of files. Pure.

Source: AWS Lambda API reference, CreateFunction, UpdateFunctionCode, UpdateFunctionConfiguration; spec section 8.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from model.rules.shapes import Boolean, Choice, Field, Integer, ListOf, MapOf, Table, Text, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_ARCHIVE_BYTES = 52_428_800
"""A zip archive that is sent along."""

MAX_CODE_BYTES = 262_144_000
"""What is in it, unpacked."""

MAX_REQUEST_BYTES = 70_167_211
"""A request with an archive in base64, as AWS takes it."""

MAX_ALL_CODE_BYTES = 512 * 1024 * 1024
"""Archives of all functions together. AWS allows 75 GB; here they are in Redis's memory."""

MAX_ENVIRONMENT_BYTES = 4096

_RESERVED = frozenset({"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV"})
_RESERVED_PREFIXES = ("AWS_LAMBDA_", "LAMBDA_")

_VARIABLE = text(r"[a-zA-Z_][a-zA-Z0-9_]*", "a variable name")
_CONFIGURATION = (
    Field("Runtime", text(r"(python3|nodejs|provided)[a-z0-9.]*", "python3.N, nodejs or provided"), "What runs it"),
    Field("Handler", Text(1, 128, re.compile(r"[^\s]+"), "FILE.FUNCTION"), "FILE.FUNCTION in the code"),
    Field("Timeout", Integer(1, 900), "Seconds one invocation may take"),
    Field("MemorySize", Integer(128, 10240), "MB of one execution environment"),
    Field("Description", Text(0, 256), "Words"),
    Field("Role", Text(0, 512), "Shown again, without effect"),
    Field("Environment", Table((
        Field("Variables", MapOf(_VARIABLE, Text(0, 8192, secret=True), 1000), "Environment variables"),
    )), "Environment variables"),
)  # fmt: skip
_CODE = (
    Field("ZipFile", Text(1, secret=True), "A zip archive, base64"),
    *(Field(name, Text(), "Not taken") for name in ("S3Bucket", "S3Key", "S3ObjectVersion", "ImageUri")),
    Field("SourceKMSKeyArn", Text(), "Not taken"),
)
_PUBLISH = Field("Publish", Boolean(), "Not available")
_REVISION = Field("RevisionId", Text(), "The revision that is to be changed")
_ARCHITECTURES = Field("Architectures", ListOf(Choice(("x86_64", "arm64")), 1, 1), "The machine that it is made for")

CREATE = Table((
    Field("FunctionName", text(r"(.*:function:)?[^:]+", "a function's name or ARN without a qualifier", longest=140),
          "Its name", required=True),
    *_CONFIGURATION,
    Field("Code", Table(_CODE), "Its code", required=True),
    Field("PackageType", Choice(("Image", "Zip")), "Zip"),
    Field("Tags", MapOf(Text(1, 128), Text(0, 256), 50), "Tags"),
    _ARCHITECTURES, _PUBLISH,
))  # fmt: skip
UPDATE_CODE = Table((*_CODE, _ARCHITECTURES, _PUBLISH, _REVISION, Field("DryRun", Boolean(), "Check only")))
UPDATE_CONFIGURATION = Table((*_CONFIGURATION, _REVISION))

WITHOUT_EFFECT: Mapping[str, tuple[object, ...]] = {
    "EphemeralStorage": ({"Size": 512},),
    "TracingConfig": ({"Mode": "PassThrough"},),
    "SnapStart": ({"ApplyOn": "None"},),
    "LoggingConfig": ({"LogFormat": "Text"},),
    "RuntimeManagementConfig": ({"UpdateRuntimeOn": "Auto"},),
    "DeadLetterConfig": (),
    "VpcConfig": (),
    "Layers": (),
    "FileSystemConfigs": (),
    "ImageConfig": (),
    "KMSKeyArn": (),
    "CodeSigningConfigArn": (),
}
"""What AWS has and this version has not: taken where it asks for what is so anyway."""


def heeded(wish: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a wish says that is heeded here, and the names of what it asks for and would not get."""
    left = {name: value for name, value in wish.items() if name not in WITHOUT_EFFECT}
    asked = [name for name, usual in WITHOUT_EFFECT.items() if not _empty(wish.get(name)) and wish[name] not in usual]
    return left, asked


def _empty(value: object) -> bool:
    """Whether a value says nothing: absent, or with nothing but empty things in it."""
    if isinstance(value, dict):
        return all(map(_empty, value.values()))
    return value is None or value in ("", [], False)


def environment_problems(variables: Mapping[str, str]) -> Iterator[tuple[str | None, str]]:
    """Yield what joins a function's variables: the variable, None for all of them, and the rule it breaks."""
    for name in variables:
        if name.startswith(_RESERVED_PREFIXES) or name in _RESERVED:
            yield name, "is set by the node and cannot be configured"
    if sum(len(name) + len(value) for name, value in variables.items()) > MAX_ENVIRONMENT_BYTES:
        yield None, "holds more than 4 KB"  # spec section 8
