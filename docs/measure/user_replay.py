"""Records a rollout with a served user, stops the server, and replays it from the cassette and from the episode log.

Runs the real commands in a folder of its own. Prints JSON: how many episodes are equal to the byte (events, end,
reward), how many requests the replay sent, and how many episodes of another agent ended in a clear miss.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # the served party

from fakes.openai_server import FakeOpenAI, Running  # noqa: E402
from fakes.wording import Plants  # noqa: E402

from muarl_cli.records.log import iter_episodes  # noqa: E402

TASKS, GROUP = 40, 2
PERSONAS = "user.personas={verbosity: {terse: 1, chatty: 1}}"


def _rollout(place: Path, out: str, *more: str, agent: str = "careful") -> dict[tuple[str, int], Any]:
    command = [
        sys.executable,
        "-m",
        "muarl_cli",
        "rollout",
        "--agent",
        agent,
        "--tasks",
        "builtin:retail:dev",
        "--json",
    ]
    command += ["--max-tasks", str(TASKS), "--group", str(GROUP), "--out", out, PERSONAS, *more]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr)
    return {(e.task_id, e.rollout): (e.events, e.end, e.reward) for e in iter_episodes(place / out)}


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fake = FakeOpenAI(Plants(lambda plan: f"How can I help you? {plan}", at=20, tries=60), keep_requests=False)
        with Running(fake) as url:
            live = _rollout(place, "live", "--user-model", "m", "--user-base-url", url, "user.cassette=tape.jsonl")
        asked = fake.count
        tape = _rollout(place, "tape", "--user", "replay", "--user-model", "tape.jsonl")
        log = _rollout(place, "log", "--user", "replay", "--user-model", "live")
        other = _rollout(place, "other", "--user", "replay", "--user-model", "tape.jsonl", agent="hasty")
        diverged = [end for _, end, _ in other.values() if end.reason.value == "user_fault"]
        return {
            "episodes": len(live),
            "requests": asked,
            "retried": sum("fidelity:" in "".join(e.tags) for events, _, _ in live.values() for e in events),
            "equal_from_cassette": sum(tape.get(key) == value for key, value in live.items()),
            "equal_from_log": sum(log.get(key) == value for key, value in live.items()),
            "requests_in_replay": fake.count - asked,
            "other_agent_misses": len(diverged),
            "other_agent_misses_named": sum("cassette miss" in end.detail for end in diverged),
        }


if __name__ == "__main__":
    print(json.dumps(measure()))
