"""Find what secret references stand for: environment variables, files, AWS Secrets Manager.

Values are kept for a few minutes, so that a rotated secret is noticed and a busy node does not ask every time. They
never enter a message, a log line or a repr.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from model.errors import RefusedError, UnavailableError
from model.secret import REFERENCE

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from model.secret import SecretText

KEPT_S = 180.0
MAX_SECRET_BYTES = 1024 * 1024

_REFUSALS = frozenset(
    {
        *("AccessDeniedException", "DecryptionFailure", "InvalidParameterException", "InvalidRequestException"),
        *("ResourceNotFoundException", "UnrecognizedClientException", "ValidationException"),
    }
)


class SecretsManager(Protocol):
    """Where `secretsmanager` references are looked up."""

    async def fetch(self, arn: str) -> str:
        """Return the secret's text. Raises RefusedError or UnavailableError."""


class Secrets:
    """Implements `model.secret.SecretResolver`. One per node: it remembers."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        secrets_manager: SecretsManager | None = None,
        kept_s: float = KEPT_S,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._secrets_manager: SecretsManager = secrets_manager or AwsSecretsManager()
        self._kept_s = kept_s
        self._known: dict[tuple[str, str], tuple[float, str]] = {}  # until when (event-loop time), and the value
        self._asking: dict[tuple[str, str], asyncio.Lock] = {}

    def __repr__(self) -> str:
        return f"Secrets({len(self._known)} known)"

    async def resolve(self, text: SecretText) -> str:
        """Return the text with every reference replaced.

        Raises RefusedError when a reference names nothing, UnavailableError when its keeper does not answer; both
        name the reference only.
        """
        found = {(scheme, name): await self._value(scheme, name) for scheme, name in dict.fromkeys(text.references())}

        def value_of(reference: re.Match[str]) -> str:
            return found[reference[1], reference[2]]

        return REFERENCE.sub(value_of, text.template)

    def forget(self) -> None:
        """Ask anew at the next use: for SIGHUP, and after a server refused a credential."""
        self._known.clear()

    async def _value(self, scheme: str, name: str) -> str:
        reference = (scheme, name)
        # Those who ask for the same secret at the same time wait for one answer.
        async with self._asking.setdefault(reference, asyncio.Lock()):
            clock = asyncio.get_running_loop()
            until, value = self._known.get(reference, (0.0, ""))
            if reference in self._known and clock.time() < until:
                return value
            if scheme == "env":
                value = self._from_environment(name)
            elif scheme == "file":
                value = await asyncio.to_thread(_from_file, name)
            else:
                value = await self._secrets_manager.fetch(name)
            self._known[reference] = (clock.time() + self._kept_s, value)
            return value

    def _from_environment(self, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise RefusedError(f"${{env:{name}}}: the environment variable is not set")
        return value


class AwsSecretsManager:
    """AWS Secrets Manager through the SDK, in the region of the secret's ARN."""

    def __init__(self, *, region: str | None = None, endpoint_url: str | None = None) -> None:
        self._region = region
        self._endpoint_url = endpoint_url

    async def fetch(self, arn: str) -> str:
        """Return the secret's text, of a binary secret its UTF-8 text."""
        # Loaded when the first such reference is used: the SDK costs more time than everything else a command does.
        import aioboto3  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError  # noqa: PLC0415

        reference = f"${{secretsmanager:{arn}}}"
        region = arn.split(":")[3] if arn.startswith("arn:") and arn.count(":") >= 6 else self._region  # noqa: PLR2004
        try:
            async with AsyncExitStack() as stack:
                session = aioboto3.Session()
                client = await stack.enter_async_context(
                    session.client("secretsmanager", region_name=region, endpoint_url=self._endpoint_url)
                )
                answer: dict[str, Any] = await client.get_secret_value(SecretId=arn)
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", "unknown error"))
            error = RefusedError if code in _REFUSALS else UnavailableError
            raise error(f"{reference}: Secrets Manager answered {code}") from exc
        except (NoCredentialsError, NoRegionError) as exc:
            raise RefusedError(f"{reference}: {exc}") from exc
        except (BotoCoreError, OSError) as exc:
            raise UnavailableError(f"{reference}: Secrets Manager cannot be reached ({type(exc).__name__})") from exc
        return _text_of(answer, reference)


def _text_of(answer: dict[str, Any], reference: str) -> str:
    text, binary = answer.get("SecretString"), answer.get("SecretBinary")
    if isinstance(text, str):
        return text
    try:
        return bytes(binary or b"").decode()
    except UnicodeDecodeError:
        raise RefusedError(f"{reference}: the secret is not UTF-8 text") from None


def _from_file(name: str) -> str:
    reference = f"${{file:{name}}}"
    try:
        with Path(name).open("rb") as opened:
            raw = opened.read(MAX_SECRET_BYTES + 1)
    except (OSError, ValueError) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
        raise RefusedError(f"{reference}: {why}") from exc
    if len(raw) > MAX_SECRET_BYTES:
        raise RefusedError(f"{reference}: larger than {MAX_SECRET_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        # Not chained: the error's text would quote bytes of the secret.
        raise RefusedError(f"{reference}: not UTF-8 text") from None
