"""`muarl rl-train` and `muarl sft` as several real processes, killed and run again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from fakes.stages import Place, has_checkpoint, hashes

from muarl_cli.engines.canary import canary_of, read_canary
from muarl_cli.errors import ExitCode
from muarl_cli.records.checkpoint import load_latest
from muarl_cli.training.tiny_model import load_model

TORCHRUN = ("--launcher", "torchrun", "--processes", "2")
DEEPSPEED = ("--launcher", "deepspeed", "--processes", "2")
LORA = ("lora.rank=4", "kl_coef=0.1", "lr=1e-3")


class Ranked(Place):
    """A place whose `rl-train` is run with more words."""

    words: tuple[str, ...] = ()

    def command(self, stage: str) -> list[str]:
        return [*super().command(stage), *(self.words if stage == "rl-train" else ())]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A fine-tuned model, made once."""
    pytest.importorskip("deepspeed", reason="the extra `deepspeed` is not installed")
    place = Place(tmp_path_factory.mktemp("learned"))
    place.run("synth-coldstart")
    place.run("sft")
    return place


def _trained(learned: Place, root: Path, *words: str) -> Ranked:
    place = Ranked(root)
    root.mkdir()
    place.take_inputs("rl-train", learned)
    place.words = words
    return place


def _metrics(place: Place, stage: str = "rl-train") -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (place.folder(stage) / "metrics.jsonl").read_text().splitlines()]
    assert rows
    return [{name: row[name] for name in ("loss", "grad_norm", "reward", "accuracy") if name in row} for row in rows]


def _same(found: list[dict[str, float]], expected: list[dict[str, float]]) -> bool:
    """Whether two runs went alike: rewards to the bit, losses and norms to what another order of summation moves."""
    assert any("loss" in row for row in expected)
    return len(found) == len(expected) and all(
        a.keys() == b.keys() and all(math.isclose(a[k], b[k], rel_tol=1e-4, abs_tol=1e-5) for k in b)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.fixture(scope="module")
def one(learned: Place, tmp_path_factory: pytest.TempPathFactory) -> Ranked:
    """The run of one plain process."""
    place = _trained(learned, tmp_path_factory.mktemp("one") / "place")
    place.run("rl-train")
    return place


@pytest.mark.slow
def test_two_processes_with_divided_weights_learn_as_one_and_resume_after_kill_9(
    learned: Place, one: Place, tmp_path: Path
) -> None:
    straight = _trained(learned, tmp_path / "straight", *TORCHRUN, "shards.zero=3")
    straight.run("rl-train")
    assert _same(_metrics(straight), _metrics(one))

    killed = _trained(learned, tmp_path / "killed", *TORCHRUN, "shards.zero=3")
    assert killed.kill_when("rl-train", has_checkpoint)
    files = {path.name for path in (killed.folder("rl-train") / "checkpoints").rglob("optimiser*")}
    assert files == {"optimiser-00000-of-00002.safetensors", "optimiser-00001-of-00002.safetensors"}
    killed.words = ("shards.zero=3",)
    refused = killed.muarl(*killed.command("rl-train")[1:], code=ExitCode.CONFIG)
    assert "begun by 2 processes, and now there is one" in refused.stderr
    killed.words = (*TORCHRUN, "shards.zero=3")
    killed.run("rl-train")
    assert hashes(killed.folder("rl-train")) == hashes(straight.folder("rl-train"))


@pytest.mark.slow
def test_one_process_may_divide_too_to_offload_its_optimiser(learned: Place, one: Place, tmp_path: Path) -> None:
    place = _trained(learned, tmp_path / "place", "shards.zero=2", "shards.offload=true", "recompute=true")
    place.run("rl-train")
    assert _same(_metrics(place), _metrics(one))


@pytest.mark.slow
def test_an_adapter_is_trained_through_deepspeeds_launcher_as_by_one_process(learned: Place, tmp_path: Path) -> None:
    alone = _trained(learned, tmp_path / "alone", *LORA)
    alone.run("rl-train")
    two = _trained(learned, tmp_path / "two", *LORA, *DEEPSPEED, "shards.zero=2")
    two.run("rl-train")
    assert _same(_metrics(two), _metrics(alone))
    newest = load_latest(two.folder("rl-train"), lambda line: None)
    assert newest is not None
    assert (newest.folder / "adapter_model.safetensors").is_file()
    assert not (newest.folder / "model.safetensors").exists()
    profile = str(Path(__file__).with_name("smallest.yaml"))
    played = ("rollout", "--profile", profile, "--model", "runs/rl-train", "--max-tasks", "1", "--out", "runs/played")
    two.muarl(*played)


@pytest.mark.slow
def test_fine_tuning_on_two_processes_goes_as_on_one(learned: Place, tmp_path: Path) -> None:
    place = _trained(learned, tmp_path / "place")
    place.take_inputs("sft", learned)
    words = [*place.command("sft")[1:-2], "--model", "runs/sft", "max_steps=3"]
    for name, more in (("one", ()), ("two", (*TORCHRUN, "shards.zero=3"))):
        place.muarl(*words, "--out", f"runs/{name}", *more)
    assert _same(_metrics(place, "two"), _metrics(place, "one"))
    newest = load_latest(place.folder("two"), lambda line: None)
    assert newest is not None
    kept = read_canary(newest.folder)
    assert kept is not None, "of a model that no process holds whole"
    assert kept.distance(canary_of(load_model(newest.folder, "fp32"), "fp32").logprobs) < 1e-3


@pytest.mark.slow
def test_several_processes_without_a_division_are_refused(learned: Place, tmp_path: Path) -> None:
    place = _trained(learned, tmp_path / "place", *TORCHRUN)
    done = place.muarl(*place.command("rl-train")[1:], code=1)  # torchrun's own code
    assert "shards.zero=2" in done.stderr
    assert not place.folder("rl-train").exists()
