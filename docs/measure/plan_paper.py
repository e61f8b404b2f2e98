"""What `muarl plan` says of the paper's settings for Qwen3-32B with servers on accelerators of their own: 32 trainer
GPUs of 80 GB and 16 more that draw, with a user of 2 s, and the same 48 divided as is best. Nothing is measured; prints
one JSON document."""

from __future__ import annotations

import json
from typing import Any

from muarl_cli.cli.console import Talk
from muarl_cli.pipeline.plan import plan
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import RlTrain
from muarl_cli.settings.resolve import resolve

PROFILE, MODEL = "paper-32b-4x8", "Qwen/Qwen3-32B"
GPU, GPUS, DRAW, LATENCY = "h100", 48, 16, 2.0


def planned(staleness: int, draw: int | None) -> dict[str, Any]:
    own = ["engines=http://servers:8000/v1", f"staleness={staleness}", "importance_cap=2"]
    settings = resolve(Stage.RL_TRAIN, profile_name=PROFILE, overrides=own, environ={}).settings
    assert isinstance(settings, RlTrain)
    return plan(settings, MODEL, GPU, GPUS, LATENCY, None, Talk(json=True), draw)


def main() -> None:
    table = {f"staleness_{k}": planned(k, DRAW) for k in (0, 1, 2)}
    best = {f"best_{k}": planned(k, None) for k in (0, 1)}
    print(json.dumps({**table, **best}))


if __name__ == "__main__":
    main()
