"""Configuration files written by a test, and what loading them gives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from config.load import load
from model.problem import InvalidConfigurationError
from tests.support.mapping_documents import document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from config.settings import Settings
    from model.problem import Problem

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MAPPING = document("S", Name="orders", FunctionName="billing")
BILLING = {"functions": {"billing": {"url": "https://billing.internal/events"}}}


def write(folder: Path, *texts: str | Mapping[str, object]) -> list[Path]:
    """Write files of these texts or documents; return where."""
    paths = [folder / f"c{i}.yaml" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return paths


def loaded(folder: Path, *texts: str | Mapping[str, object], **options: Any) -> Settings:
    """Load files of these texts or documents, in June 2026."""
    return load(write(folder, *texts), **{"environ": {}, "now": NOW, **options})


def problems(folder: Path, *texts: str | Mapping[str, object], **options: Any) -> list[Problem]:
    """Return what is wrong with files."""
    with pytest.raises(InvalidConfigurationError) as caught:
        loaded(folder, *texts, **options)
    return caught.value.problems


def rules(folder: Path, *texts: str | Mapping[str, object], **options: Any) -> list[tuple[str, str]]:
    """Return the path and the rule of each problem."""
    return [(problem.path, problem.rule) for problem in problems(folder, *texts, **options)]
