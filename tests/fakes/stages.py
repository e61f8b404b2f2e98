"""The five stages as real `muarl` processes at the smallest size, to be run, killed and run again.

Every folder name is relative to the place a process works in, so that two places hold runs of the same ids and their
artifacts can be compared by hash. What is compared holds no clock reading: the summary, the episodes, the verdicts, the
newest checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).resolve().parents[1] / "e2e" / "smallest.yaml"
STAGES = ("synth-coldstart", "sft", "rollout", "rl-train", "eval")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "synth-coldstart": (),
    "sft": ("synth-coldstart",),
    "rollout": ("sft",),
    "rl-train": ("sft",),
    "eval": ("rl-train",),
}
TIMEOUT = 600.0


def muarl() -> Path:
    """The installed program."""
    return Path(sys.executable).with_name("muarl")


@lru_cache(maxsize=1)
def refusals(count: int = 8) -> tuple[str, ...]:
    """Training tasks that need no write. A model that knows nothing solves some rollouts of these by saying nothing
    useful until the user leaves, so that even the smallest run has groups to learn from."""
    from muarl_cli.worlds.catalog import load_tasks

    both = load_tasks(["builtin:retail:train", "builtin:library:train"])
    idle = [f"{t.source}:{t.scenario}:{t.split}:{t.id}" for _, t in both if not t.writes]
    return tuple(idle[i * len(idle) // count] for i in range(count))


@dataclass
class Place:
    """A working directory in which the stages are run; `runs/<stage>` is what each leaves."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def folder(self, stage: str) -> Path:
        return self.root / "runs" / stage

    def command(self, stage: str) -> list[str]:
        """The stage's ordinary command."""
        words = {
            "synth-coldstart": [],
            "sft": ["--data", "runs/synth-coldstart"],
            "rollout": ["--model", "runs/sft"],
            "rl-train": ["--model", "runs/sft", "--tasks", ",".join(refusals())],
            "eval": ["--model", "runs/rl-train"],
        }[stage]
        return [str(muarl()), stage, "--profile", str(PROFILE), *words, "--out", f"runs/{stage}"]

    def start(self, command: list[str], **pipes: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=self.root, env=self.environ(), text=True, **pipes)

    def run(self, stage: str) -> None:
        """Run a stage to its end; raises `AssertionError` with its talk where it fails."""
        self.muarl(*self.command(stage)[1:])

    def muarl(self, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Any `muarl` command, which must end with `code`."""
        done = subprocess.run(
            [str(muarl()), *words],
            cwd=self.root,
            env=self.environ() | environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode} of {words}:\n{done.stdout}\n{done.stderr}"
        return done

    def timed(self, stage: str) -> float:
        """Run a stage to its end; the seconds of its work, imports left out."""
        begun: list[float] = []

        def note(folder: Path, pid: int) -> bool:
            if not begun and has_begun(folder, pid):
                begun.append(time.monotonic())
            return False

        self.kill_when(stage, note)
        return time.monotonic() - begun[0]

    def kill_when(self, stage: str, ready: Callable[[Path, int], bool], delay: float = 0.0) -> bool:
        """Start the stage and SIGKILL it `delay` seconds after `ready(folder, pid)`; False where it was done before."""
        process = self.start(self.command(stage), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        folder = self.folder(stage)
        try:
            until = time.monotonic() + TIMEOUT
            while process.poll() is None and not ready(folder, process.pid) and time.monotonic() < until:
                time.sleep(0.001)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            _, talk = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), talk
        return process.returncode != 0

    def take_inputs(self, stage: str, other: Place) -> None:
        """Copy what the stage reads from another place, where its stages were run."""
        for name in NEEDS[stage]:
            if not self.folder(name).exists():
                shutil.copytree(other.folder(name), self.folder(name))

    def environ(self) -> dict[str, str]:
        """Of a stage: nothing of the caller's own keys and addresses."""
        quiet = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "MUARL_"))}
        return quiet | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"} | dict(self.environment)


def hashes(folder: Path) -> dict[str, str]:
    """What a finished stage left, by name, without anything that depends on the clock."""
    from muarl_cli.records.checkpoint import load_latest
    from muarl_cli.records.log import artifact_hash

    found = {name: _sha256(folder / name) for name in ("summary.json", "verdicts.jsonl", "lineage.json")}
    if (folder / "episodes.jsonl").exists():
        found["episodes"] = artifact_hash(folder)
    if (folder / "checkpoints").exists():
        newest = load_latest(folder, lambda line: None)
        found["checkpoint"] = newest.hash if newest else ""
        for mark in ("BEST", "HIGHEST"):
            marked = folder / "checkpoints" / mark
            found[mark] = marked.read_text().strip() if marked.exists() else ""
    if (folder / "base").exists():
        found["base"] = _sha256(folder / "base" / "model.safetensors")
    return {name: value for name, value in found.items() if value}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""


def has_episodes(folder: Path, pid: int) -> bool:
    """Whether at least one episode was written down."""
    log = folder / "episodes.jsonl"
    return log.exists() and log.stat().st_size > 0


def has_checkpoint(folder: Path, pid: int) -> bool:
    """Whether a checkpoint was finished."""
    return (folder / "checkpoints" / "LATEST").exists()


def has_begun(folder: Path, pid: int) -> bool:
    """Whether this process has opened the folder: imports are over, work begins."""
    lock = folder / "run.lock"
    return lock.exists() and f'"pid": {pid},' in lock.read_text() and (folder / "settings.yaml").exists()


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found
