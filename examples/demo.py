"""The whole pipeline on a laptop: five stages, offline, then what each of them was worth on tasks nobody trained on.

    make demo                                      (or: python examples/demo.py [--fresh])

Runs the ordinary `muarl` commands one after the other, each on what the one before it wrote. Then it scores the model
at four moments (as made, after SFT, after SFT that went on for as long as RL took, after RL) on the same held-out tasks
with the same users, beside two agents that do not try, and writes everything to summary.json. Invariant: nothing here
knows a score; all figures are computed from the episode logs. Started again, it goes on where it stopped (`--fresh`
deletes what is there), and time already spent still counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
THREADS = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
"""of PyTorch. Two threads train this model 1.4 times as fast as one; they must sleep while they wait for each other,
since spinning makes them five times slower than one as soon as anything else runs"""
GREEDY = ("--temperature", "0", "--trials", "1", "--no-floors")
DIFFERENCES = {
    "sft_minus_base": ("base", "sft"),
    "rl_minus_sft": ("sft", "rl"),
    "rl_minus_sft_longer": ("sft_longer", "rl"),
}
ROWS = ("do_nothing", "transfer_only", "base", "sft", "sft_longer", "rl")


@dataclass
class Demo:
    """A demo folder, and what its commands have cost so far."""

    out: Path
    profile: str
    muarl: Path

    @property
    def _ledger(self) -> Path:
        return self.out / "commands.json"

    def costs(self) -> dict[str, dict[str, Any]]:
        """By command: `seconds` of all its starts until it was done, `peak_mb` of its process, `done`."""
        found: dict[str, dict[str, Any]] = json.loads(self._ledger.read_text()) if self._ledger.exists() else {}
        return found

    def muarl_command(self, name: str, stage: str, *words: str) -> None:
        """Run one `muarl` command, its talk going straight through; stops the demo where it fails. A command that was
        done before runs again (it finds nothing owed), which is not counted."""
        command = [str(self.muarl), stage, "--profile", self.profile, *words, "--out", str(self.out / name)]
        print(f"\n$ muarl {shlex.join(command[1:])}", flush=True)
        begun = time.monotonic()
        process = subprocess.Popen(command, env=_environment())
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except KeyboardInterrupt:
            process.wait()
            self._add(name, time.monotonic() - begun, 0.0, False)
            raise SystemExit(130) from None
        self._add(name, time.monotonic() - begun, _megabytes(usage.ru_maxrss), process.returncode == 0)
        if process.returncode:
            print(
                f"error: muarl {stage} ended with exit code {process.returncode}\n"
                "next: mend what it says and start the demo again; it goes on from here (--fresh begins anew)",
                file=sys.stderr,
            )
            raise SystemExit(process.returncode if process.returncode > 0 else 128 - process.returncode)

    def _add(self, name: str, seconds: float, peak_mb: float, done: bool) -> None:
        costs = self.costs()
        before = costs.get(name, {"seconds": 0.0, "peak_mb": 0.0, "done": False})
        if before["done"]:
            return
        costs[name] = {
            "seconds": round(before["seconds"] + seconds, 2),
            "peak_mb": round(max(before["peak_mb"], peak_mb), 1),
            "done": done,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        aside = self._ledger.with_suffix(".aside")
        aside.write_text(json.dumps(costs, indent=2) + "\n")
        os.replace(aside, self._ledger)

    def run(self) -> None:
        """The five stages, then the evaluations that the comparison needs."""
        out = self.out
        self.muarl_command("coldstart", "synth-coldstart")
        self.muarl_command("sft", "sft", "--data", f"{out}/coldstart")
        self.muarl_command("rollouts", "rollout", "--model", f"{out}/sft")
        self.muarl_command("rl", "rl-train", "--model", f"{out}/sft")
        self.muarl_command("eval", "eval", "--model", f"{out}/rl")

        spent = max(1, round(self.costs()["rl"]["seconds"]))
        print(
            "\nThese were the five stages. What was each of them worth? The same test tasks for all; and SFT "
            f"again, for the {spent} s that RL took: is it the method, or only more training?",
            flush=True,
        )
        box = ("epochs=0", "max_steps=0", f"stop_after_seconds={spent}")
        self.muarl_command("sft_longer", "sft", "--data", f"{out}/coldstart", "--model", f"{out}/sft", *box)
        for name, model, words in (
            ("eval_base", "sft/base", ("--no-floors",)),
            ("eval_sft", "sft", ("--no-floors",)),
            ("eval_sft_longer", "sft_longer", ("--no-floors",)),
            ("eval_sft_greedy", "sft", GREEDY),
            ("eval_rl_greedy", "rl", GREEDY),
        ):
            self.muarl_command(name, "eval", "--model", f"{out}/{model}", *words)


def summary_of(demo: Demo) -> tuple[dict[str, Any], list[Any]]:
    """(what summary.json holds, tables for a person), from the logs alone."""
    from muarl_cli.reports.tables import comparison_table, difference_table
    from muarl_cli.scoring.summary import compare

    begun, own = time.monotonic(), demo.out
    scores = {
        "do_nothing": score(own / "eval", "eval/do-nothing"),
        "transfer_only": score(own / "eval", "eval/transfer-only"),
        "base": score(own / "eval_base"),
        "sft": score(own / "eval_sft"),
        "sft_longer": score(own / "eval_sft_longer"),
        "rl": score(own / "eval"),
    }
    greedy = {"sft, greedy": score(own / "eval_sft_greedy"), "rl, greedy": score(own / "eval_rl_greedy")}
    resamples, seed = _setting(own / "eval", "bootstrap"), _setting(own / "eval", "seed")
    gains = {
        name: compare(scores[before], scores[after], resamples=resamples, seed=seed)
        for name, (before, after) in DIFFERENCES.items()
    }
    costs = demo.costs()
    summary = {
        "seconds": round(sum(cost["seconds"] for cost in costs.values()) + time.monotonic() - begun, 1),
        "peak_mb": round(max(cost["peak_mb"] for cost in costs.values()) + _own_megabytes(), 1),
        "tasks": len(scores["rl"].tasks),
        "scores": {name: scores[name].headline() for name in ROWS},
        "differences": {
            name: {key: getattr(gain.difference, key) for key in ("mean", "low", "high")}
            for name, gain in gains.items()
        },
    }
    heat = _setting(own / "eval", "temperature")
    title = f"{summary['tasks']} held-out test tasks, temperature {heat:g}, 95 % intervals over tasks"
    return summary, [comparison_table(scores | greedy, title=title), difference_table(gains)]


def score(folder: Path, stage: str = "eval") -> Any:
    """The scores of one agent in an evaluation's log; a floor's episodes have a stage of their own."""
    from muarl_cli.records.log import iter_episodes
    from muarl_cli.scoring.summary import summarise
    from muarl_cli.worlds.catalog import load_tasks

    tasks = [task for _, task in load_tasks(_setting(folder, "tasks"))]
    return summarise(
        iter_episodes(folder, lambda episode: episode.stage == stage),
        resamples=_setting(folder, "bootstrap"),
        seed=_setting(folder, "seed"),
        writes={task.task_hash: task.writes for task in tasks},
        families={task.task_hash: task.family for task in tasks},
    )


def _setting(folder: Path, key: str) -> Any:
    from muarl_cli.records.run import read_settings

    return (read_settings(folder) or {})[key]


def show(summary: Mapping[str, Any], tables: list[Any], costs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print tables, costs and what follows from them."""
    from rich.console import Console

    from muarl_cli.reports.figures import interval
    from muarl_cli.reports.tables import draw

    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)
    console.print()
    draw(tables, console)
    console.print()
    for name, cost in costs.items():
        console.print(f"{name:16} {cost['seconds']:7.0f} s {cost['peak_mb']:7.0f} MB")
    console.print(f"{'in all':16} {summary['seconds']:7.0f} s {summary['peak_mb']:7.0f} MB at most\n")
    for name, gain in summary["differences"].items():
        label = name.replace("_minus_", " − ").replace("_", " ")
        verdict = "above zero" if gain["low"] > 0 else "NOT above zero"
        console.print(f"{label}: {interval(gain, signed=True)}, {verdict}")


def _environment() -> dict[str, str]:
    """Of the commands: their threads, and nothing that could reach for a network."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MUARL_")}
    return {**own, **THREADS, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _megabytes(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _own_megabytes() -> float:
    return _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> int:
    parser = argparse.ArgumentParser(description="The five stages of muarl, and what each of them was worth.")
    parser.add_argument("--fresh", action="store_true", help="delete the folder first")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder, below the checkout")
    parser.add_argument("--profile", default="tiny", help="a profile or a YAML file with settings of all stages")
    options = parser.parse_args()
    os.chdir(ROOT)
    muarl = Path(sys.executable).with_name("muarl")
    if not muarl.exists():
        print(f"error: there is no {muarl}\nnext: make demo, which sets everything up", file=sys.stderr)
        return 66
    if options.fresh:
        shutil.rmtree(options.out, ignore_errors=True)
    demo = Demo(options.out, options.profile, muarl)
    demo.run()
    summary, tables = summary_of(demo)
    place = options.out / "summary.json"
    place.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    show(summary, tables, demo.costs())
    print(f"\nall of this, and every conversation, lies in {options.out} (figures: {place})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
