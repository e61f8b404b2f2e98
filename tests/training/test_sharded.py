"""Two real processes over gloo against one: the same losses, the same weights, the same after a resume."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.ranked import CASES, model_of, samples, steps, trainer_of
from fakes.toys import toy_row
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.errors import MuarlError
from muarl_cli.training.optim import require_ranks
from muarl_cli.training.packing import agent_tokens, micro_batches, rank_shares
from muarl_cli.training.ranks import ALONE, Ranks

PROGRAM = Path(__file__).resolve().parents[1] / "fakes" / "ranked.py"
EXACT = [name for name, case in CASES.items() if case.dtype == "fp32"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes saw in every case: one start of torchrun for all of them."""
    pytest.importorskip("deepspeed", reason="the extra `deepspeed` is not installed")
    folder = tmp_path_factory.mktemp("ranked")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(PROGRAM)]
    done = subprocess.run(
        [*command, str(folder), *CASES],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in CASES}


def _alone(name: str) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """The same steps in this process, by plain AdamW."""
    case = CASES[name]
    trainer = trainer_of(case, model_of(case))
    metrics = steps(trainer, case, 0, 4)
    return metrics, {name: tensor.float().flatten().tolist() for name, tensor in trainer.optimiser.weights().items()}


def _furthest(found: dict[str, list[float]], expected: dict[str, list[float]]) -> float:
    assert found.keys() == expected.keys()
    return max(abs(a - b) for name in expected for a, b in zip(found[name], expected[name], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_two_sharded_processes_take_the_steps_of_one(seen: dict[str, Any], name: str) -> None:
    metrics, weights = _alone(name)
    start = {n: p.detach().flatten().tolist() for n, p in model_of(CASES[name]).named_parameters() if p.requires_grad}
    assert _furthest(weights, start) > 1e-3
    assert _furthest(seen[name]["weights"], weights) < 1e-6
    for two, one in zip(seen[name]["metrics"], metrics, strict=True):
        assert two.keys() == one.keys()
        assert all(math.isclose(two[key], one[key], rel_tol=1e-5, abs_tol=1e-6) for key in one)


@pytest.mark.slow
def test_bf16_weights_over_fp32_masters_stay_near_those_of_one_process(seen: dict[str, Any]) -> None:
    metrics, weights = _alone("zero3-bf16")
    assert _furthest(seen["zero3-bf16"]["weights"], weights) < 0.05
    assert math.isclose(seen["zero3-bf16"]["metrics"][0]["loss"], metrics[0]["loss"], abs_tol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_the_ranks_wrote_resumes_to_the_same_bits(seen: dict[str, Any], name: str) -> None:
    assert seen[name]["resumed"] == seen[name]["weights"]
    assert seen[name]["state"]["ranks"] == 2 and seen[name]["state"]["step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2-broken", "zero3-broken"])
def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_on_all(seen: dict[str, Any], name: str) -> None:
    assert [row["updates"] for row in seen[name]["metrics"]] == [1, 0, 1, 1]
    assert [row["skipped"] for row in seen[name]["metrics"]] == [0, 1, 1, 1]
    assert all(math.isfinite(x) for values in seen[name]["weights"].values() for x in values)


def test_a_run_is_not_resumed_by_another_number_of_processes() -> None:
    with pytest.raises(MuarlError, match="begun by 2 processes, and now there is one"):
        require_ranks(ALONE, {"ranks": 2})
    with pytest.raises(MuarlError, match="begun by 1 process, and now there are 4"):
        require_ranks(Ranks(3, 4), {})
    require_ranks(ALONE, {})


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=20),
    size=st.integers(2, 5),
    forks=st.integers(1, 3),
    budget=st.integers(20, 200),
)
def test_shares_hold_every_row_once_and_whole_episodes(lengths: list[int], size: int, forks: int, budget: int) -> None:
    rows = [toy_row(i, length) for i, length in enumerate(lengths)]
    units = [i // forks for i in range(len(rows))]
    shares = rank_shares(rows, units, size)
    assert sorted(i for share in shares for i in share) == list(range(len(rows)))
    for unit in set(units):
        assert sum(any(units[i] == unit for i in share) for share in shares) == 1
    of_rank = [list(micro_batches(rows, budget, "cpu", units, rank=rank, size=size)) for rank in range(size)]
    assert len({len(batches) for batches in of_rank}) == 1
    counted = [sum(int(batch.item.eq(i).sum()) for each in of_rank for batch in each) for i in range(len(rows))]
    assert counted == [agent_tokens(row) for row in rows]
    for together in zip(*of_rank, strict=True):
        assert {batch.most for batch in together} == {max(len(batch.item) for batch in together)}


def test_shares_are_balanced_and_rows_that_begin_alike_stay_together() -> None:
    given = [sample.row for sample in samples()]
    units = list(range(len(given)))
    shares = rank_shares(given, units, 2)
    sizes = [sum(len(given[i].ids) for i in share) for share in shares]
    assert max(sizes) - min(sizes) <= 2 * max(len(row.ids) for row in given)
    groups = [{i // 4 for i in share} for share in shares]
    assert len(groups[0] & groups[1]) <= 1
