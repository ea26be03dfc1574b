"""`make chaos`: real servers, a fleet of real processes, faults by seed; prints what they cost.

Exit status 0 when every promise was kept; otherwise 1, with the seed that makes the same faults again and the folder
of the history: the function's log, the nodes' logs, and the faults as they happened.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from node.embedded_redis import EmbeddedRedis
from tests.chaos.fleet import Servers
from tests.chaos.run import run
from tests.support.elasticmq import ElasticMQ
from tests.support.kafka import KafkaProcess
from tests.support.kinesis_local import KinesisLocal
from tests.support.servers import ServerUnavailableError


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description="Faults by seed against a real fleet.")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the faults go on (default: 300)")
    parser.add_argument("--seed", type=int, help="which faults (default: others each time)")
    parser.add_argument("--history", type=Path, help="keep the history in this new folder (default: only on failure)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    folder = options.history or Path(tempfile.mkdtemp(prefix="esmd-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with EmbeddedRedis(port=0) as redis, KafkaProcess() as kafka, KinesisLocal() as kinesis, ElasticMQ() as sqs:
            servers = Servers(redis, kafka, kinesis, sqs)
            report = asyncio.run(run(servers, folder, seed=seed, seconds=options.seconds, say=_say))
    except ServerUnavailableError as exc:
        _say(f"a server is missing: {exc}")
        return 1
    except BaseException:
        _say(f"seed {seed} did not come to an end; history: {folder}")
        raise
    sys.stdout.write((json.dumps(report.document()) if options.json else report.table()) + "\n")
    if report.all_problems:
        return 1
    if options.history is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
