"""`muarl synth-coldstart`: a teacher demonstrates; what it wins is kept.

Examples:
  muarl synth-coldstart --profile tiny --scenarios retail,library --count 200 --out runs/cold
  muarl synth-coldstart --scenarios 9 --teacher-model gpt-4o --user-model gpt-4o --max-usd 5
"""

from __future__ import annotations

from typing import Annotated

import typer

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import Common, launch


def synth_coldstart(
    overrides: o.Overrides = None,
    scenarios: Annotated[
        str | None, typer.Option("--scenarios", help="the first N of the printed order, or names separated by commas")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="accepted trajectories wanted")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="scripted teachers, as careful=0.4,hasty=0.6")] = None,
    teacher_model: Annotated[str | None, typer.Option("--teacher-model", help="a teacher model instead")] = None,
    teacher_base_url: Annotated[
        str | None, typer.Option("--teacher-base-url", help="address that serves the teacher")
    ] = None,
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
        "scenarios": scenarios,
        "count": count,
        "teacher.agent": agent,
        "teacher.model": teacher_model,
        "teacher.base_url": teacher_base_url,
        "user.backend": user,
        "user.model": user_model,
        "user.base_url": user_base_url,
        "seed": seed,
        "in_flight": in_flight,
        "max_usd": max_usd,
    }
    return launch("synth_coldstart", Common(profile, config, out, dry_run, json), flags, overrides)
