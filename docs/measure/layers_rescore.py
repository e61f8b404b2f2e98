"""How long 10,000 stored episodes take to be judged again on one core, and whether twice gives the same bytes.

Plays scripted conversations in both built-in scenarios (careful and hasty in turns), then times `rescore` alone. Prints
JSON; `seconds` is the wall-clock and `cpu_seconds` the
processor time of the slower of two calls, reading and writing included.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

from muarl_cli.conversation.limits import Limits
from muarl_cli.pipeline.parties import scripted_agent, scripted_user
from muarl_cli.pipeline.play import job, play
from muarl_cli.records.log import EpisodeLog
from muarl_cli.scoring.rescore import rescore
from muarl_cli.worlds.domain import BUILTIN, builtin

LIMITS = Limits(max_turns=30, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)


async def write_log(folder: Path, wanted: int) -> None:
    agents = {(name, kind): scripted_agent(kind, builtin(name)) for name in BUILTIN for kind in ("careful", "hasty")}
    users = {name: scripted_user(builtin(name)) for name in BUILTIN}
    tasks = [(name, task) for name in BUILTIN for split in ("test", "train") for task in builtin(name).tasks(split)]
    with EpisodeLog.open(folder) as log:
        batch = []
        for number in range(wanted):
            name, task = tasks[number % len(tasks)]
            kind = ("careful", "hasty")[number // len(tasks) % 2]
            work = job("run", "eval", 0, builtin(name), task, number // len(tasks), 1)
            batch.append(await play(work, agents[name, kind], users[name], LIMITS))
            if len(batch) == 500 or number + 1 == wanted:
                log.append_many(batch)
                batch = []


def digest(folder: Path) -> str:
    content = b"".join((folder / name).read_bytes() for name in ("verdicts.jsonl", "layers.json"))
    return hashlib.sha256(content).hexdigest()


def main(wanted: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        asyncio.run(write_log(folder, wanted))
        seconds, cpu, digests = [], [], []
        for _ in range(2):
            start, used = time.perf_counter(), time.process_time()
            result = rescore(folder)
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
            digests.append(digest(folder))
        summary = result["labels"]["eval"]
        print(
            json.dumps(
                {
                    "episodes": result["episodes"],
                    "seconds": max(seconds),
                    "cpu_seconds": max(cpu),
                    "equal": digests[0] == digests[1],
                    "success": summary["success"]["mean"],
                    "clean_success": summary["clean_success"]["mean"],
                    "corrupt_success": summary["corrupt_success"]["mean"],
                }
            )
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
