"""`muarl eval`: score an agent on unseen tasks, with interval and floors.

Examples:
  muarl eval --profile tiny --model runs/demo/rl --out runs/eval
  muarl eval --bench tau2 --domain retail --agent gold-replay --trials 1
  muarl eval --bench tau1 --tau1-root ~/tau-bench --agent do-nothing --no-floors --trials 1
  muarl eval --bench tau2 --model qwen --base-url http://127.0.0.1:8000/v1 --user-model qwen
"""

from __future__ import annotations

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import stage_command

evaluate = stage_command(
    "eval",
    *o.POLICY,
    o.ENGINES,
    o.flag("bench", str, "tau2, tau1, bfcl, acebench: its leaderboard set"),
    o.flag("domain", list[str], "domain of the benchmark; repeatable", commas=True),
    o.flag("split", str, "split of the benchmark"),
    o.flag("acebench_dir", str, "checkout of ACEBench"),
    *o.TASKS,
    o.flag("trials", int, "independent runs a task"),
    o.flag("floors", bool, "run do-nothing and transfer-only beside it", switch="--floors/--no-floors"),
    o.flag("judge_model", str, "model that judges what tasks assert in words", "judge.model"),
    o.flag("judge_base_url", str, "address that serves the judge", "judge.base_url"),
    o.flag("outputs", str, "what must be said: check, or drop it from the score"),
    o.flag("allow_overlap", bool, "score in spite of tasks that were trained on"),
    *o.WORLD,
    *o.USER,
    *o.CHECKOUTS,
    *o.TALKING,
)
