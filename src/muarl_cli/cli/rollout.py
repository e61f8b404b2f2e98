"""`muarl rollout`: let an agent talk to users, and keep the record.

Examples:
  muarl rollout --agent careful --tasks builtin:retail:dev --max-tasks 20 --out runs/careful
  muarl rollout --model runs/demo/sft --profile tiny --group 4
  muarl rollout --tasks tau2:retail:test --model qwen --base-url http://127.0.0.1:8000/v1 --user-model qwen
"""

from __future__ import annotations

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import stage_command

rollout = stage_command(
    "rollout",
    *o.POLICY,
    o.ENGINES,
    *o.TASKS,
    o.flag("group", int, "rollouts a task"),
    *o.WORLD,
    *o.USER,
    *o.CHECKOUTS,
    *o.TALKING,
)
