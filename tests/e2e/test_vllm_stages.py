"""`muarl rl-train` and `muarl rollout` with the policy's turns drawn by a real vLLM, as a server and in the stage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from engines.vllm_process import PYTHON, needs_vllm

pytestmark = [pytest.mark.slow, needs_vllm]
ROOT = Path(__file__).resolve().parents[2]


def test_a_real_vllm_gets_every_new_weight_and_all_that_it_sampled_is_trained_on() -> None:
    program = [sys.executable, str(ROOT / "docs" / "measure" / "vllm_rl.py"), "--python", PYTHON]
    done = subprocess.run(program, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for way in ("ahead", "ahead_adapter"):
        run = found.pop(way)
        assert run["steps"] == 6 and run["updated"] >= 1 and run["faults"] == 0, (way, run)
        assert run["staleness_max"] == 1 and run["trained"] == run["sampled"] > 0, (way, run)
    for way, run in found.items():
        assert run["steps"] == 2 and run["updated"] >= 1, (way, run)
        assert run["weight_versions"] == ["0", "1"] and run["faults"] == 0, (way, run)
        assert run["trained"] == run["sampled"] > 0, (way, run)
        assert run["mismatch_max"] < 1e-3, (way, run)
        assert {count for name, count in run.items() if name.startswith("rolled")} == {8}, (way, run)
