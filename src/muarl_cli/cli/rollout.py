"""`muarl rollout`: let an agent talk to users, and keep the record.

Examples:
  muarl rollout --agent careful --tasks builtin:retail:dev --max-tasks 20 --out runs/careful
  muarl rollout --model runs/demo/sft --profile tiny --group 4
  muarl rollout --tasks tau2:retail:test --model qwen --base-url http://127.0.0.1:8000/v1 --user-model qwen
"""

from __future__ import annotations

from typing import Annotated

import typer

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import Common, launch


def rollout(
    overrides: o.Overrides = None,
    model: o.Model = None,
    base_url: o.BaseUrl = None,
    agent: o.Agent = None,
    tasks: o.Tasks = None,
    max_tasks: o.MaxTasks = None,
    group: Annotated[int | None, typer.Option("--group", help="rollouts a task")] = None,
    temperature: o.Temperature = None,
    world_injectors: o.WorldInjectors = None,
    guard: o.Guard = None,
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
        "base_url": base_url,
        "agent": agent,
        "tasks": o.joined(tasks),
        "max_tasks": max_tasks,
        "group": group,
        "temperature": temperature,
        "world_injectors": world_injectors,
        "guard": guard or None,
        "user.backend": user,
        "user.model": user_model,
        "user.base_url": user_base_url,
        "seed": seed,
        "in_flight": in_flight,
        "max_usd": max_usd,
    }
    return launch("rollout", Common(profile, config, out, dry_run, json), flags, overrides)
