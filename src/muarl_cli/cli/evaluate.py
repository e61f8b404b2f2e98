"""`muarl eval`: score an agent on unseen tasks, with interval and floors.

Examples:
  muarl eval --profile tiny --model runs/demo/rl --out runs/eval
  muarl eval --bench tau2 --domain retail --agent gold-replay --trials 1
  muarl eval --bench tau2 --model qwen --base-url http://127.0.0.1:8000/v1 --user-model qwen
"""

from __future__ import annotations

from typing import Annotated

import typer

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import Common, launch


def evaluate(
    overrides: o.Overrides = None,
    model: o.Model = None,
    base_url: o.BaseUrl = None,
    agent: o.Agent = None,
    bench: Annotated[
        str | None, typer.Option("--bench", help="tau2, tau1, bfcl, acebench: its leaderboard set")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="domain of the benchmark; repeatable")] = None,
    split: Annotated[str | None, typer.Option("--split", help="split of the benchmark")] = None,
    tasks: o.Tasks = None,
    max_tasks: o.MaxTasks = None,
    trials: Annotated[int | None, typer.Option("--trials", help="independent runs a task")] = None,
    temperature: o.Temperature = None,
    floors: Annotated[
        bool | None, typer.Option("--floors/--no-floors", help="run do-nothing and transfer-only beside it")
    ] = None,
    allow_overlap: Annotated[
        bool | None, typer.Option("--allow-overlap", help="score in spite of tasks that were trained on")
    ] = None,
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
        "bench": bench,
        "domain": o.joined(domain),
        "split": split,
        "tasks": o.joined(tasks),
        "max_tasks": max_tasks,
        "trials": trials,
        "temperature": temperature,
        "floors": floors,
        "allow_overlap": allow_overlap or None,
        "world_injectors": world_injectors,
        "guard": guard or None,
        "user.backend": user,
        "user.model": user_model,
        "user.base_url": user_base_url,
        "seed": seed,
        "in_flight": in_flight,
        "max_usd": max_usd,
    }
    return launch("eval", Common(profile, config, out, dry_run, json), flags, overrides)
