"""`muarl rl-train`: GRPO on whole conversations, reward from the outcome.

Examples:
  muarl rl-train --profile tiny --model runs/demo/sft --out runs/rl
  muarl rl-train --user-model gpt-4o --max-usd 5 --steps 2
"""

from __future__ import annotations

from typing import Annotated

import typer

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import Common, launch


def rl_train(
    overrides: o.Overrides = None,
    model: o.Model = None,
    tasks: o.Tasks = None,
    max_tasks: o.MaxTasks = None,
    steps: Annotated[int | None, typer.Option("--steps", help="optimiser steps; 0 = by epochs")] = None,
    group: Annotated[int | None, typer.Option("--group", help="rollouts a task")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="highest learning rate")] = None,
    user: o.User = None,
    user_model: o.UserModel = None,
    user_base_url: o.UserBaseUrl = None,
    profile: o.Profile = "",
    config: o.Config = None,
    out: o.Out = None,
    seed: o.Seed = None,
    in_flight: o.InFlight = None,
    max_usd: o.MaxUsd = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    flags = {
        "model": model,
        "tasks": o.joined(tasks),
        "max_tasks": max_tasks,
        "steps": steps,
        "group": group,
        "lr": lr,
        "user.backend": user,
        "user.model": user_model,
        "user.base_url": user_base_url,
        "seed": seed,
        "in_flight": in_flight,
        "max_usd": max_usd,
    }
    return launch("rl_train", Common(profile, config, out, dry_run, json), flags, overrides)
