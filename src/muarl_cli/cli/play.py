"""`muarl play`: talk to an agent yourself, or be the agent.

Examples:
  muarl play --scenario retail --as user
  muarl play --scenario retail --as agent
  muarl play --scenario library --as user --model runs/demo/sft --profile tiny
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o


class Part(StrEnum):
    """Which party the person plays."""

    USER = "user"
    AGENT = "agent"


def play(
    overrides: o.Overrides = None,
    scenario: Annotated[
        str, typer.Option("--scenario", help="a built-in scenario, or source:name (tau2:retail)")
    ] = "retail",
    part: Annotated[Part, typer.Option("--as", help="the party you play")] = Part.USER,
    task: Annotated[str, typer.Option("--task", help="a task's id; default: drawn by --seed")] = "",
    split: Annotated[str, typer.Option("--split", help="where the task is from; default: dev")] = "",
    model: Annotated[
        str | None,
        typer.Option("--model", help="checkpoint folder or served model to talk to", rich_help_panel=o.PARTIES),
    ] = None,
    base_url: o.BaseUrl = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent",
            help="scripted agent to talk to; default: careful, or the policy where --model is given",
            rich_help_panel=o.PARTIES,
        ),
    ] = None,
    temperature: o.Temperature = None,
    user: o.User = None,
    user_model: o.UserModel = None,
    user_base_url: o.UserBaseUrl = None,
    profile: o.Profile = "",
    config: o.Config = None,
    out: Annotated[Path | None, typer.Option("--out", help="new folder to write; default runs/play-<number>")] = None,
    seed: o.Seed = None,
    max_usd: o.MaxUsd = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.cli.launch import flag_name
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.pipeline import sitting
    from muarl_cli.settings.bases import Stage
    from muarl_cli.settings.resolve import resolve

    by_hand = part is Part.USER
    of_user = {"--user": user, "--user-model": user_model, "--user-base-url": user_base_url}
    of_agent = {"--agent": agent, "--model": model, "--base-url": base_url, "--temperature": temperature}
    yours = of_user if by_hand else of_agent
    if given_twice := [flag for flag, value in yours.items() if value is not None]:
        raise MuarlError(
            f"you play the {part.value} yourself, so {given_twice[0]} has no use", next_step="leave it out"
        )
    flags = {
        "model": model,
        "base_url": base_url,
        # without a model the scripted agent serves, so that the first try needs nothing
        "agent": agent or ("policy" if model else "careful") if by_hand else "human",
        "temperature": temperature,
        "user.backend": "human" if by_hand else user,
        "user.model": user_model,
        "user.base_url": user_base_url,
        "seed": seed,
        "max_usd": max_usd,
        "group": 1,
        "limits.max_seconds": 0,  # a person may think
    }
    given = {key: (flag_name(key), value) for key, value in flags.items() if value is not None}
    talk = Talk(json=json)
    with talk.data_only():
        options = {"profile_name": profile, "config": config, "overrides": overrides or (), "flags": given}
        resolved = resolve(Stage.ROLLOUT, **options)  # type: ignore[arg-type]
        reference = sitting.task_ref(scenario, split, task, resolved.settings.seed)
        resolved = resolved.with_value("tasks", [reference], "--scenario")
        folder = out or sitting.free_folder(Path("runs"))
        talk.say(f"play -> {folder}")
        result = sitting.run(resolved.settings, folder, talk)  # type: ignore[arg-type]
        code = int(result.pop("exit_code", ExitCode.OK))
        talk.result(result)
    return code
