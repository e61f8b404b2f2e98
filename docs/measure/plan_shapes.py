"""`muarl plan` against the clock, over several shapes: forecasts of a step, then that step. Prints one JSON document.

    python docs/measure/plan_shapes.py [--sft runs/demo/sft] [--shape NAME ...] [--out runs/plan]

For each shape a few conversations are held (`muarl rollout` on other tasks, with the same user), the step is forecast
from them, `muarl rl-train` takes two steps, and the step is forecast once more: a machine that others use as well is
not equally fast all the time, so the mean of the forecasts before and after is compared. A ratio is forecast over
measurement. Memory is the peak of the training process; the user's cost is read from the run's ledger. The served user
words the scripted one's turns after a fixed wait; its address is on this machine, and here it is taken for a paid one.
Shares of idle time under 0.1 are compared by their difference. What was measured before is read from `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.records.ledger import read_spent

ROOT = Path(__file__).resolve().parents[2]
PRICES = 'prices={"m": {"input": 2.5, "output": 10}}'
HALF = ("prompts_per_step=8",)
STEPS = 2
BUSY = 0.1
"""share of idle time from which on a ratio says something"""
PAID = """
import sys
from muarl_cli.engines.address import Address
Address.paid = property(lambda self: True)
from muarl_cli.cli.app import main
sys.exit(main())
"""
"""`muarl`, with every address taken for a paid one"""


@dataclass(frozen=True)
class Shape:
    step: tuple[str, ...] = ()
    """settings of the training alone"""
    talk: tuple[str, ...] = ()
    """settings of whatever holds conversations"""
    latency: float | None = None
    """seconds that a served user takes for a turn; None: the scripted one in this process"""


SHAPES = {
    "tiny": Shape(),
    "user 50 ms": Shape(HALF, latency=0.05),
    "user 200 ms": Shape(HALF, latency=0.2),
    "lora": Shape((*HALF, "lora.rank=16", "lr=3e-3")),
    "longer": Shape(
        (*HALF, "refill_rounds=1"), ("user.injectors={ambiguity: 0.6, tangent: 0.6}", "limits.max_turns=30")
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Forecasts and what they forecast.")
    parser.add_argument("--sft", default="runs/demo/sft")
    parser.add_argument("--shape", action="append", choices=tuple(SHAPES))
    parser.add_argument("--out", type=Path, default=Path("runs/plan"))
    options = parser.parse_args()
    table = {}
    for name in options.shape or SHAPES:
        folder = options.out / name.replace(" ", "-")
        found = folder / "found.json"
        if not found.exists():
            found.write_text(json.dumps(measure(SHAPES[name], options.sft, folder), indent=1), encoding="utf-8")
        table[name] = compared(json.loads(found.read_text(encoding="utf-8")))
    far = {name: max(row["away"].values()) for name, row in table.items()}
    worst = max(far, key=lambda name: far[name])
    print(json.dumps({"shapes": table, "count": len(table), "worst": round(far[worst], 3), "worst_shape": worst}))


def measure(shape: Shape, sft: str, folder: Path) -> dict[str, Any]:
    """The forecasts of a shape, and what its steps took."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(shape.latency) as user:
        common = (*user, *shape.talk)
        start = ("--model", sft)
        muarl("rollout", *start, "--out", str(folder / "talk"), settings=(*common, "max_tasks=24"))
        plan = ("plan", *start, "--like", str(folder / "talk"), "--user-latency", str(shape.latency or 0.0))
        asked = (*common, *shape.step)
        before = json.loads(muarl(*plan, settings=asked)[0])
        _, peak = muarl("rl-train", *start, "--out", str(folder / "rl"), settings=(*asked, f"steps={STEPS}"))
        after = json.loads(muarl(*plan, settings=asked)[0])
    rows = [json.loads(line) for line in (folder / "rl" / "metrics.jsonl").read_text().splitlines()]
    spent = read_spent(folder / "rl" / "spend.json")
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0] if name.startswith("seconds_")}
    step = mean["seconds_rollout"] + mean["seconds_update"]
    return {
        "forecasts": [before, after],
        "measured": {
            "step_seconds": step,
            "rollout_seconds": mean["seconds_rollout"],
            "update_seconds": mean["seconds_update"],
            "idle_share": (mean["seconds_rollout"] - mean["seconds_drawing"]) / step,
            "memory_gb": peak,
            "user_usd_per_step": spent[0] / len(rows) if spent else 0.0,
        },
    }


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Forecast, measurement and how far they are apart, as a share of the measurement; idle shares that are small on
    both sides by their difference."""
    measured = found["measured"]
    planned = {name: sum(f[name] for f in found["forecasts"]) / 2 for name in measured if name in found["forecasts"][0]}
    planned["memory_gb"] = sum(f["memory_gb_per_device"]["training"] for f in found["forecasts"]) / 2
    ratios, away = {}, {}
    for name, seen in measured.items():
        if name == "idle_share" and max(seen, planned[name]) < BUSY:
            away[name] = abs(seen - planned[name])
        elif seen:
            ratios[name] = round(planned[name] / seen, 3)
            away[name] = abs(planned[name] / seen - 1)
    return {
        "planned": {name: round(value, 4) for name, value in planned.items()},
        "measured": {name: round(value, 4) for name, value in measured.items()},
        "ratios": ratios,
        "away": {name: round(value, 3) for name, value in away.items()},
        "machine": round(found["forecasts"][1]["step_seconds"] / found["forecasts"][0]["step_seconds"], 2),
    }


def muarl(*words: str, settings: Sequence[str] = ()) -> tuple[str, float]:
    """Run a command with the tiny profile; (what it printed, GB at its peak)."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-c", PAID, *words, *settings, "--profile", "tiny", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: muarl {' '.join(words)} ended with exit code {process.returncode}\n{printed}")
    return printed, usage.ru_maxrss * 1024 / 1e9


@contextmanager
def served(latency: float | None) -> Iterator[tuple[str, ...]]:
    """Settings of the user; a served one is there as long as the block lasts."""
    if latency is None:
        yield ()
        return
    command = [sys.executable, str(ROOT / "tests" / "fakes" / "openai_server.py"), "--words", f"--latency={latency}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        yield ("user.backend=llm", "user.model=m", f"user.base_url={url}", PRICES)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
