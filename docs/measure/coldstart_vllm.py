"""The cold start with teacher and user on a real vLLM (CPU, a tiny model that has learned next to nothing): what
becomes of every reply. Prints JSON: requests that vLLM finished, where each of their replies is written down, and
every conversation with its verdict.

Needs an interpreter that has vLLM: --python, or MUARL_VLLM_PYTHON (`make test-vllm` makes one).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from engines.vllm_process import PYTHON, served
from fakes.stages import Place, muarl
from vllm_rl import stage

from muarl_cli.conversation.events import Actor, Event
from muarl_cli.errors import ExitCode
from muarl_cli.records import codec
from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.journal import Journal
from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts

CONTEXT = 16_384
"""room for a policy and its tools in the tokens of a tiny tokenizer"""
COUNT, ATTEMPTS = 12, 2
"""demonstrations wanted, and conversations held for each at most: all are, since none will do"""


def finished(url: str) -> Counter[str]:
    """Requests that have left the server, by its own count: "abort" where the client had gone (a time-out), else a
    reply was sent."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10) as page:
        text = page.read().decode()
    found: Counter[str] = Counter()
    for labels, number in re.findall(r"^vllm:request_success_total\{([^}]*)\} (\S+)$", text, re.M):
        reason = re.search(r'finished_reason="(\w+)"', labels)
        found[reason.group(1) if reason else ""] += int(float(number))
    return found


def cold_start(place: Place, url: str, fallback: str) -> dict[str, Any]:
    """A run with both parties served; `fallback` is what becomes of a turn that the user's model cannot word."""
    out = place.root / f"cold-{fallback}"
    before = finished(url)
    words = ["synth-coldstart", "--scenarios", "retail,library", "--count", str(COUNT), "--out", str(out), "--json"]
    words += ["--teacher-model", "policy", "--teacher-base-url", url]
    words += ["--user", "llm", "--user-model", "policy", "--user-base-url", url, f"user.cassette={out}.cassette"]
    words += [f"max_attempts={ATTEMPTS}", f"user.fallback={fallback}", "user.max_tokens=64", "in_flight=6"]
    words += ["limits.max_turn_tokens=128", "limits.max_turns=8"]
    done = subprocess.run([str(muarl()), *words], env=place.environ(), capture_output=True, text=True, check=False)
    if done.returncode != ExitCode.BAD_DATA:  # no demonstration is good enough, which it says
        raise SystemExit(f"exit code {done.returncode}\n{done.stderr[-3000:]}")
    episodes, verdicts = list(iter_episodes(out)), read_verdicts(out)
    ended = finished(url) - before
    replies = ended.total() - ended["abort"]
    with (out / "episodes.jsonl").open("rb") as lines:  # also attempts that a fault ended and another one replaced
        held = [codec.decode(line) for line in lines]
    turns = sum(begins_turn(event) for attempt in held for event in attempt.events)
    lapses = Counter(row["lapse"] for row in Journal(out / "lapses.jsonl").rows())
    said = sum("reply" in json.loads(line) for line in Path(f"{out}.cassette").read_text().splitlines())
    judged = [verdicts.get(episode.episode_id, {}) for episode in episodes]
    return {
        "replies": replies,
        "aborted": ended["abort"],
        "teacher_turns": turns,
        "teacher_lapses": dict(sorted(lapses.items())),
        "user_replies": said,
        "unaccounted": replies - turns - lapses.total() - said,
        "asked": int(COUNT * ATTEMPTS),
        "attempts": len(held),
        "conversations": len(episodes),
        "accepted": sum(bool(row.get("accepted")) for row in judged),
        "rejected": sum(e.valid and not row.get("accepted") for e, row in zip(episodes, judged, strict=True)),
        "faulted": sum(not e.valid for e in episodes),
        "ends": dict(Counter(e.end.reason.value for e in episodes)),
        "without_reason": sum(not row.get("accepted") and not row.get("reasons") for row in judged),
    }


def begins_turn(event: Event) -> bool:
    """Whether the event is the first of a turn that the teacher gave."""
    return event.actor is Actor.AGENT and not {"greeting", "beside_calls", "same_turn"} & set(event.tags)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", default=PYTHON, help="interpreter with vLLM")
    python = parser.parse_args().python
    if not python:
        parser.error("which interpreter has vLLM? --python, or MUARL_VLLM_PYTHON")
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        for name in ("synth-coldstart", "sft"):
            stage(place, [str(muarl())], name, name, *([f"max_length={CONTEXT}"] if name == "sft" else []))
        model = resolve_model_path(place.folder("sft"), lambda line: None)
        tools = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        with served(model, "--max-context", str(CONTEXT), python=python, flags=tools) as server:
            runs = {name: cold_start(place, server.url, name) for name in ("scripted", "none")}
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
