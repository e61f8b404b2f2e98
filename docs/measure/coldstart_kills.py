"""A cold start killed again and again: `kill -9` after some episodes are on disk, then the same command. Prints JSON:
kills, conversations that stand twice in the log, and whether the run ends as one that was never killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT, KILLS, TIMEOUT = 400, 4, 300.0


def command(out: Path) -> list[str]:
    words = ["synth-coldstart", "--scenarios", "retail,library", "--count", str(COUNT)]
    return [str(Path(sys.executable).with_name("muarl")), *words, "--agent", "careful=0.7,hasty=0.3", "--out", str(out)]


def killed(out: Path, bytes_more: int) -> bool:
    """Run until the log has grown by so much, then SIGKILL; False where it ended before."""
    log = out / "episodes.jsonl"
    start = log.stat().st_size if log.exists() else 0
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.stat().st_size > start + bytes_more:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    process.kill()
    return False


def left(out: Path) -> dict[str, object]:
    from muarl_cli.records.log import artifact_hash, iter_episodes

    ids = [episode.episode_id for episode in iter_episodes(out)]
    raw = [line for line in (out / "episodes.jsonl").read_bytes().split(b"\n") if line]
    files = ("verdicts.jsonl", "card.json", "lineage.json")
    return {
        "artifact": artifact_hash(out),
        "files": [hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files],
        "lines": len(raw),
        "ids": len(set(ids)),
    }


def main() -> None:
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as place:
        straight, broken = Path(place) / "straight" / "run", Path(place) / "broken" / "run"
        subprocess.run(command(straight), check=True, capture_output=True)
        kills = sum(killed(broken, rng.randrange(1, 150_000)) for _ in range(KILLS))
        subprocess.run(command(broken), check=True, capture_output=True)
        one, other = left(straight), left(broken)
    print(
        json.dumps(
            {
                "kills": kills,
                "accepted": COUNT,
                "conversations": other["ids"],
                "twice": int(str(other["lines"])) - int(str(other["ids"])),
                "same_log": one["artifact"] == other["artifact"],
                "same_verdicts_and_card": one["files"] == other["files"],
            }
        )
    )


if __name__ == "__main__":
    main()
