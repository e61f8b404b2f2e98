"""`muarl sft`: fine-tune on the agent's turns of logged conversations.

Examples:
  muarl sft --profile tiny --data runs/demo/coldstart --out runs/sft
  muarl sft --profile paper-8b --data runs/coldstart --data runs/rollouts --where reward=1 lr=1e-5
"""

from __future__ import annotations

from typing import Annotated

import typer

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import Common, launch


def sft(
    overrides: o.Overrides = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="episode log or run folder, - for standard input; repeatable")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="which episodes: reward=1,scenario=builtin:retail")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="folder to start from; default: a tiny model from nothing")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="passes over the data")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="optimiser steps; 0 = by epochs")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="highest learning rate")] = None,
    profile: o.Profile = "",
    config: o.Config = None,
    out: o.Out = None,
    seed: o.Seed = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    flags = {
        "data": data or None,
        "where": where,
        "model": model,
        "epochs": epochs,
        "max_steps": max_steps,
        "lr": lr,
        "seed": seed,
    }
    return launch("sft", Common(profile, config, out, dry_run, json), flags, overrides)
