"""`muarl sft`: fine-tune on the agent's turns of logged conversations.

Examples:
  muarl sft --profile tiny --data runs/demo/coldstart --out runs/sft
  muarl sft --profile paper-8b --data runs/coldstart --data runs/rollouts --where reward=1 lr=1e-5
"""

from __future__ import annotations

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import stage_command

sft = stage_command(
    "sft",
    o.flag("data", list[str], "episode log or run folder, - for standard input; repeatable"),
    o.flag("where", str, "which episodes: reward=1,scenario=builtin:retail"),
    o.flag("model", str, "folder to start from; default: a tiny model from nothing"),
    o.flag("epochs", float, "passes over the data"),
    o.flag("max_steps", int, "optimiser steps; 0 = by epochs"),
    o.flag("lr", float, "highest learning rate"),
    o.SEED,
    o.MCP,
    many=True,
)
