"""`muarl rollout` on servers that hold the model that is named, and others; prints one JSON document.

Each case is a real process against a real local server with vLLM's routes: the exit code, how far off it said that the
server is, and how many episodes were held.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import torch
from fakes.stages import Place
from fakes.vllm_like_server import VllmLikeServer

from muarl_cli.engines.canary import NAME
from muarl_cli.records.checkpoint import resolve_model_path, steps
from muarl_cli.records.log import iter_episodes
from muarl_cli.training.tiny_model import load_model

OFF = re.compile(r"off by ([0-9.]+) on average")


def rounded(model: Any) -> Any:
    """The model with weights of bf16, as a server in that precision holds them."""
    return model.to(torch.bfloat16).to(torch.float32)


def noisy(model: Any) -> Any:
    """The model with noise on every weight, as large as the weight's own spread."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += weight.std() * torch.randn_like(weight)
    return model


def case(place: Place, name: str, model: Any, named: str) -> dict[str, Any]:
    words = [*place.command("rollout")[:-1], f"runs/{name}", "--model", named]
    with VllmLikeServer(model) as server:
        done = subprocess.run(
            [*words, "--engine", server.url],
            cwd=place.root,
            env=place.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        asked = server.completions
    off = OFF.search(done.stderr)
    return {
        "code": done.returncode,
        "off": float(off[1]) if off else None,
        "warned": "warning: " in done.stderr,
        "unchecked": "not checked that the engine serves" in done.stderr,
        "asked": asked,
        "episodes": len(list(iter_episodes(place.root / "runs" / name))) if asked > 1 else 0,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name))
        for stage in ("synth-coldstart", "sft"):
            place.run(stage)
        run = place.folder("sft")
        best = resolve_model_path(run, print)
        other = next(folder for folder in steps(run) if folder != best)
        foreign = place.root / "runs" / "foreign"
        foreign.mkdir()
        for file in best.iterdir():
            if file.is_file() and file.name not in (NAME, "manifest.json"):
                (foreign / file.name).write_bytes(file.read_bytes())
        found = {
            "same": case(place, "same", load_model(best, "fp32"), "runs/sft"),
            "bf16": case(place, "bf16", rounded(load_model(best, "fp32")), "runs/sft"),
            "other_step": case(place, "other", load_model(other, "fp32"), "runs/sft"),
            "noisy": case(place, "noisy", noisy(load_model(best, "fp32")), "runs/sft"),
            "base": case(place, "base", load_model(run / "base", "fp32"), "runs/sft"),
            "no_canary": case(place, "no_canary", noisy(load_model(best, "fp32")), "runs/foreign"),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
