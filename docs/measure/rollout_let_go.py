"""A rollout with served users as a real process, in a terminal and told to stop; prints one JSON document.

python docs/measure/rollout_let_go.py shown     what a live terminal of 80 columns shows, and what a pipe gets
python docs/measure/rollout_let_go.py stopped   SIGINT and SIGTERM in the middle, then the same command again
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.openai_server import FakeOpenAI, Running
from fakes.watched import CONTROL, in_terminal, rollout_command, stopped
from fakes.wording import Rewords

from muarl_cli.records.log import artifact_hash, iter_episodes

EPISODES = 48


def shown(url: str, place: Path) -> dict[str, Any]:
    code, seen = in_terminal(rollout_command(url, place / "terminal", EPISODES))
    lines = [line.strip() for line in re.split(r"[\r\n]+", CONTROL.sub("", seen)) if "turns" in line]
    piped = subprocess.run(rollout_command(url, place / "pipe", EPISODES), capture_output=True, text=True, check=True)
    return {
        "code": code,
        "frames": len(lines),
        "frame": lines[len(lines) // 2],
        "widest": max(map(len, lines)),
        "controls_in_pipe": len(re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", piped.stderr)),
    }


def let_go(url: str, place: Path) -> dict[str, Any]:
    subprocess.run(rollout_command(url, place / "straight", EPISODES), capture_output=True, check=True)
    wanted = artifact_hash(place / "straight")
    found: dict[str, Any] = {"codes": [], "seconds": 0.0, "kept": [], "same": 0}
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = place / number.name
        code, _, seconds = stopped(rollout_command(url, folder, EPISODES), folder, number)
        found["codes"].append(code)
        found["seconds"] = max(found["seconds"], round(seconds, 2))
        found["kept"].append(len(list(iter_episodes(folder))))
        subprocess.run(rollout_command(url, folder, EPISODES), capture_output=True, check=True)
        found["same"] += artifact_hash(folder) == wanted
    return found | {"episodes": EPISODES, "int": found["codes"][0], "term": found["codes"][1]}


def main() -> None:
    with tempfile.TemporaryDirectory() as name, Running(FakeOpenAI(Rewords(), latency=0.2)) as url:
        print(json.dumps((shown if sys.argv[1:] == ["shown"] else let_go)(url, Path(name))))


if __name__ == "__main__":
    main()
