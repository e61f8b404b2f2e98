"""How the settings of `rl-train` become a trainer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes.toys import sampled_by, toy_model, toy_row

from muarl_cli.pipeline.rl_train import _trainer
from muarl_cli.settings.models import Stage
from muarl_cli.settings.resolve import resolve
from muarl_cli.training.grpo import Sample
from muarl_cli.training.ranks import ALONE


@pytest.mark.parametrize(("top_p", "clipped"), [("0.5", 0.0), ("1.0", 1.0)])
def test_what_top_p_adds_to_a_draw_is_not_taken_for_a_step_of_the_policy(top_p: str, clipped: float) -> None:
    """A nucleus of half the mass doubles every probability. Read as the old policy's, they would all be clipped."""
    model = toy_model()
    row = sampled_by(model, toy_row(1, 12))
    drawn = replace(row, logprobs=tuple(p + 0.69 if p else 0.0 for p in row.logprobs))
    settings: Any = resolve(Stage.RL_TRAIN, overrides=[f"top_p={top_p}"], environ={}).settings
    trainer = _trainer(settings, model, ALONE, "", "fp32", "", 1)
    metrics = trainer.update([Sample(drawn, -1.0)])
    assert metrics["clip_low"] == clipped and metrics["mismatch_abs"] == pytest.approx(0.69, abs=1e-3)
