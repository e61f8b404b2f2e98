"""An exported folder is the policy, to the bit, and nothing of the trainer."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.stages import muarl

from muarl_cli.cli.app import main
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records import checkpoint
from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.lineage import Lineage
from muarl_cli.training.export import Form, export_model
from muarl_cli.training.tiny_model import TinySpec, load_model, make_tiny, save_model
from muarl_cli.training.tokenizer import load_tokenizer

SPEC = TinySpec(layers=2, width=32, heads=2, kv_heads=1, head_size=16, vocab=300)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(["words of a user", "and of an agent"], tmp_path_factory.mktemp("base") / "m", SPEC, 1, "compact")


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint of that model."""
    folder = tmp_path_factory.mktemp("run")
    model, tokenizer = load_model(base, "fp32"), load_tokenizer(base)
    from safetensors.torch import save_file

    checkpoint.save(
        folder,
        3,
        write_model=lambda place: save_model(model, tokenizer, place, "compact"),
        write_tensors={"optimiser": lambda path: save_file({"a": torch.ones(2)}, str(path))},
        state={},
        lineage=Lineage.make(stage="rl-train", run_id="r", settings_hash="s", seeds={}),
        keep_last=1,
    )
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with an adapter that changes the base, and the logits with it."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter") / "a"
    torch.manual_seed(5)
    wrapped = get_peft_model(load_model(base, "fp32"), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.eval()
    wrapped.save_pretrained(str(folder))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / file, folder / file)
    return folder, _logits(wrapped)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(20, 60)[None]).logits
    return found


def test_an_export_is_the_checkpoint_without_the_trainer(run: Path, base: Path, tmp_path: Path) -> None:
    found = export_model(run, tmp_path / "new" / "out", Form.MERGED, pytest.fail)
    out = Path(found["out"])
    assert found["kind"] == "model" and found["bytes"] == (out / "model.safetensors").stat().st_size
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "lineage.json"} <= {p.name for p in out.iterdir()}
    assert not (out / "trainer").exists() and not (out / "manifest.json").exists()
    assert torch.equal(_logits(load_model(out, "fp32")), _logits(load_model(base, "fp32")))
    assert load_tokenizer(out).encode("words") == load_tokenizer(base).encode("words")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out"]


def test_a_merged_adapter_is_one_model_that_says_what_base_and_adapter_said(
    adapter: tuple[Path, Any], base: Path, tmp_path: Path
) -> None:
    folder, wanted = adapter
    found = export_model(folder, tmp_path / "out", Form.MERGED, pytest.fail)
    merged = load_model(tmp_path / "out", "fp32")
    assert found["kind"] == "merged" and not (tmp_path / "out" / "adapter_config.json").exists()
    torch.testing.assert_close(_logits(merged), wanted, rtol=1e-5, atol=1e-5)
    assert (_logits(merged) - _logits(load_model(base, "fp32"))).abs().max() > 0.01


def test_an_adapter_alone_is_the_adapter_and_names_its_base(adapter: tuple[Path, Any], tmp_path: Path) -> None:
    found = export_model(adapter[0], tmp_path / "out", Form.ADAPTER, pytest.fail)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert found["kind"] == "adapter" and Path(config["base_model_name_or_path"]).is_dir()
    assert found["bytes"] == (adapter[0] / "adapter_model.safetensors").stat().st_size
    played = load_model(resolve_model_path(tmp_path / "out", pytest.fail), "fp32")
    torch.testing.assert_close(_logits(played), adapter[1], rtol=1e-5, atol=1e-5)


def test_servers_refuse_an_adapter_that_they_would_play_without(
    adapter: tuple[Path, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(adapter[0])
    engine = ["--engine", "http://127.0.0.1:9/v1", "--out", str(tmp_path / "run")]
    for command in (["serve", folder, "--print"], ["rollout", "--model", folder, *engine]):
        assert main(command) == ExitCode.USAGE, command
        assert "muarl export model" in capfd.readouterr().err


def test_nothing_is_written_over_and_what_is_missing_is_named(
    run: Path, adapter: tuple[Path, Any], tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(MuarlError) as error:
        export_model(run, tmp_path / "there", Form.MERGED, pytest.fail)
    assert error.value.code is ExitCode.USAGE and "exists" in error.value.what
    with pytest.raises(MuarlError) as error:
        export_model(run, tmp_path / "out", Form.ADAPTER, pytest.fail)
    assert "no adapter" in error.value.what
    lonely = tmp_path / "lonely"
    shutil.copytree(adapter[0], lonely)
    config = json.loads((lonely / "adapter_config.json").read_text())
    (lonely / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gone"}))
    with pytest.raises(MuarlError) as error:
        export_model(lonely, tmp_path / "out", Form.MERGED, pytest.fail)
    assert error.value.code is ExitCode.MISSING_INPUT and "'gone'" in error.value.what
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lonely", "there"]


@pytest.mark.slow
def test_the_command_writes_what_the_function_writes(run: Path, tmp_path: Path) -> None:
    command = [str(muarl()), "export", "model", str(run), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["kind"] == "model"
    assert load_model(tmp_path / "out", "fp32") is not None
