"""GRPO and rollouts of a tiny model whose turns a real vLLM draws: a CPU server, and vLLM in the stage's own process.
An adapter is trained that way too, exported in both forms, and vLLM plays what was exported; and both are trained
with staleness 1, where a server's weights are replaced under conversations. Prints JSON: what was synced, how far
vLLM's log-probabilities were from the trainer's, tokens sampled and trained.

Needs an interpreter that has vLLM and muarl: --python, or MUARL_VLLM_PYTHON (`make test-vllm` makes one).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from engines.vllm_process import PYTHON, served
from fakes.stages import Place, muarl, refusals

from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.log import iter_episodes

STEPS, AHEAD = 2, 6
CONTEXT = 1536
"""what the smallest profile's model was made for"""


def stage(place: Place, program: list[str], name: str, out: str, *words: str) -> Path:
    """Run a stage of the smallest profile with `program`; its folder."""
    command = [*program, *place.command(name)[1:-2], "--out", f"runs/{out}", *words]
    quiet = place.environ() | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(command, cwd=place.root, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return place.folder(out)


def trained(folder: Path) -> dict[str, Any]:
    """What a run of rl-train wrote down: agent tokens in the loss against those sampled in the groups that teach."""
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    groups: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for episode in iter_episodes(folder):
        groups[(episode.step, episode.group_id)].append(episode)
    teaching = [held for held in groups.values() if len({e.reward for e in held if e.valid}) > 1]
    return {
        "steps": len(steps),
        "updated": sum(row["updates"] for row in steps),
        "episodes": sum(len(held) for held in groups.values()),
        "faults": sum(not e.valid for held in groups.values() for e in held),
        "weight_versions": sorted({e.agent["weight_version"] for held in groups.values() for e in held}),
        "sampled": sum(e.usage["agent_tokens"] for held in teaching for e in held if e.valid),
        "trained": sum(int(row["agent_tokens"]) for row in steps),
        "mismatch_max": max(
            (row["mismatch_max"] for row in steps if "mismatch_max" in row and not row.get("staleness_max")),
            default=None,
        ),
        "staleness_max": max((row.get("staleness_max", 0) for row in steps), default=0),
        "under_new_weights": sum("weight_versions" in e.agent for held in groups.values() for e in held),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", default=PYTHON, help="interpreter with vLLM and muarl")
    python = parser.parse_args().python
    if not python:
        parser.error("which interpreter has vLLM? --python, or MUARL_VLLM_PYTHON")
    ours, theirs = [str(muarl())], [python, "-m", "muarl_cli"]
    same = ["--tasks", ",".join(refusals()), f"limits.max_context={CONTEXT}"]
    few = [*same, f"steps={STEPS}", "prompts_per_step=4"]
    ahead = [*same, f"steps={AHEAD}", "prompts_per_step=2", "staleness=1", "importance_cap=2"]
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        for name in ("synth-coldstart", "sft"):
            stage(place, ours, name, name)
        start = resolve_model_path(place.folder("sft"), lambda line: None)
        with served(start, "--max-context", str(CONTEXT), python=python) as server:
            server_run = trained(stage(place, ours, "rl-train", "rl-train", *few, "--engine", server.url))
            rolled = stage(place, ours, "rollout", "rollout", "--model", "runs/rl-train", "--engine", server.url)
            server_run["rolled"] = sum(episode.valid for episode in iter_episodes(rolled))
        with served(start, "--max-context", str(CONTEXT), "--max-lora-rank", "4", python=python) as server:
            to = [*ahead, "--engine", server.url]
            ahead_lora = trained(stage(place, ours, "rl-train", "ahead-lora", *to, "lora.rank=4"))
            ahead_run = trained(stage(place, ours, "rl-train", "ahead", *to))
        local = ["--engine", "vllm?enforce_eager=true"]
        local_run = trained(stage(place, theirs, "rl-train", "rl-local", *few, *local))
        rolled = stage(place, theirs, "rollout", "rolled-local", "--model", "runs/rl-local", *local)
        local_run["rolled"] = sum(episode.valid for episode in iter_episodes(rolled))
        adapted = trained(stage(place, theirs, "rl-train", "rl-lora", *few, *local, "lora.rank=4"))
        for form in ("merged", "adapter"):
            export = [*ours, "export", "model", "runs/rl-lora", "--out", f"models/{form}", f"--{form}"]
            subprocess.run(export, cwd=place.root, env=place.environ(), capture_output=True, check=True)
            rolled = stage(place, theirs, "rollout", f"rolled-{form}", "--model", f"models/{form}", *local)
            adapted[f"rolled_{form}"] = sum(episode.valid for episode in iter_episodes(rolled))
    runs = {"server": server_run, "local": local_run, "adapter": adapted}
    print(json.dumps(runs | {"ahead": ahead_run, "ahead_adapter": ahead_lora}))


if __name__ == "__main__":
    main()
