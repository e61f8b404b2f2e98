"""`muarl plan`: forecast an RL step: seconds, GPU memory, user-model cost, idle share.

Examples:
  muarl plan --profile paper-32b --model Qwen/Qwen3-32B --gpus 32 --user-latency 2
  muarl plan --profile paper-32b-4x8 --model Qwen/Qwen3-32B --gpu h100 --gpus 48 --engine-gpus 16 --user-latency 2
  muarl plan --profile tiny --like runs/demo/rollouts --model runs/demo/sft
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o


def plan(
    overrides: o.Overrides = None,
    profile: o.Profile = "",
    config: o.Config = None,
    model: Annotated[str, typer.Option("--model", help="model folder, or a Qwen3 name for its size")] = "",
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="accelerators; default 8")] = None,
    engine_gpus: Annotated[
        int | None,
        typer.Option("--engine-gpus", min=1, help="of these, those of servers; default: the shortest step"),
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="a100, h100 or h200; default h200")] = None,
    user_latency: Annotated[float, typer.Option("--user-latency", min=0, help="seconds a user turn takes")] = 0.0,
    like: Annotated[Path | None, typer.Option("--like", help="run to take conversations and speed from")] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.pipeline.plan import plan as work_out
    from muarl_cli.settings.bases import Stage
    from muarl_cli.settings.models import RlTrain
    from muarl_cli.settings.resolve import resolve

    talk = Talk(json=json)
    with talk.data_only():
        settings = resolve(Stage.RL_TRAIN, profile_name=profile, config=config, overrides=overrides or ()).settings
        assert isinstance(settings, RlTrain)
        found = work_out(settings, model, gpu, gpus, user_latency, like, talk, engine_gpus)
    talk.result(found)
    return 0
