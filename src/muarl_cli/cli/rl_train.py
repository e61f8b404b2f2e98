"""`muarl rl-train`: GRPO on whole conversations, reward from the outcome.

Examples:
  muarl rl-train --profile tiny --model runs/demo/sft --out runs/rl
  muarl rl-train --tasks tau2:retail:train,tau2:airline:train,tau2:telecom:train --user-model qwen
  muarl rl-train --user-model gpt-4o --max-usd 5 --steps 2
  muarl rl-train --launcher deepspeed --hostfile hosts shards.zero=3 --model Qwen/Qwen3-32B --dry-run
"""

from __future__ import annotations

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import stage_command

rl_train = stage_command(
    "rl_train",
    o.POLICY[0],
    o.ENGINES,
    *o.TASKS,
    o.flag("outputs", str, "what must be said: drop it from the reward, or check"),
    o.flag("steps", int, "optimiser steps; 0 = by epochs"),
    o.flag("group", int, "rollouts a task"),
    o.flag("lr", float, "highest learning rate"),
    *o.USER,
    *o.CHECKOUTS,
    *o.TALKING,
    many=True,
)
