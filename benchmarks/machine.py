"""The machine a benchmark runs on: which CPUs it may use, and how to describe it without naming it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Cpus:
    """One CPU for what is measured, the others for servers, load and the benchmark itself. Empty: not pinned."""

    measured: frozenset[int]
    others: frozenset[int]

    @classmethod
    def divide(cls) -> Cpus:
        """Divide the CPUs this process may use; without at least two, or without permission, pin nothing."""
        if not hasattr(os, "sched_setaffinity"):
            return cls(frozenset(), frozenset())
        allowed = os.sched_getaffinity(0)
        if len(allowed) < 2:
            return cls(frozenset(), frozenset())
        measured = frozenset({max(allowed)})
        try:
            os.sched_setaffinity(0, allowed - measured)
        except OSError:
            return cls(frozenset(), frozenset())
        os.sched_setaffinity(0, allowed)
        return cls(measured, frozenset(allowed - measured))

    @property
    def pinned(self) -> bool:
        """Whether CPUs are divided at all."""
        return bool(self.measured)


def pin(pid: int, cpus: frozenset[int]) -> None:
    """Keep a process, with the threads and children it has yet to start, on some CPUs; empty: leave it alone."""
    if cpus:
        os.sched_setaffinity(pid, cpus)


def describe(cpus: Cpus) -> dict[str, str | int | bool]:
    """Return what a reader needs to judge the figures: no host names, no paths."""
    memory_gb = round(psutil.virtual_memory().total / 2**30)
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gb": memory_gb,
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{sys.implementation.name} {platform.python_version()}",
        "pinned": cpus.pinned,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
