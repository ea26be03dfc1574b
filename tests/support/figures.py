"""Figures that a test measured, for whoever runs it with `-s` or `-rP`."""

from __future__ import annotations


def measured(**figures: object) -> None:
    """Print what was measured."""
    print("measured:", ", ".join(f"{name} {figure}" for name, figure in figures.items()))  # noqa: T201  # captured
