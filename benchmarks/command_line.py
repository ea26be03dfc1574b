"""The command line of whatever reads a source and posts to a function: floor scripts and peers.

Of the standard library alone, since peers run in environments of their own.
"""

from __future__ import annotations

import argparse

KAFKA = ("--servers", "--topic")
KINESIS = ("--endpoint", "--stream")
SQS = ("--endpoint", "--queue")


def reader(description: str, source: tuple[str, ...], *, filters: bool = False) -> argparse.ArgumentParser:
    """Return a parser of where to read and where to post; `filters`: the program can also deliver one type only."""
    parser = argparse.ArgumentParser(description=description)
    for name in source:
        parser.add_argument(name, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--batch", type=int, default=100)
    if filters:
        parser.add_argument("--keep", help="deliver only records of this type")
    return parser
