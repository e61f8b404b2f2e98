"""The program as a person meets it: help, flags, messages, exit codes."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.cli import app as program
from muarl_cli.cli import config, evaluate, launch, rl_train, rollout, sft, synth_coldstart
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.lineage import Lineage, write_lineage
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import MODELS
from muarl_cli.settings.pages import leaves

# importlib mode has no package for the tests: load the helper by its path
_spec = importlib.util.spec_from_file_location("fake_pipeline", Path(__file__).with_name("fake_pipeline.py"))
assert _spec and _spec.loader
fake_pipeline = importlib.util.module_from_spec(_spec)
sys.modules["fake_pipeline"] = fake_pipeline
_spec.loader.exec_module(fake_pipeline)

COMMANDS: dict[str, Any] = {
    "synth-coldstart": synth_coldstart,
    "sft": sft,
    "rollout": rollout,
    "rl-train": rl_train,
    "eval": evaluate,
}
HEAVY = ("torch", "transformers", "peft", "openai", "aiohttp", "jsonschema", "inspect_evals", "numpy", "yaml", "jinja2")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    return fake_pipeline.install(monkeypatch)


@pytest.fixture
def muarl(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = program.main(arguments)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def _process(*arguments: str, cwd: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments] if code else [sys.executable, "-m", "muarl_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_help_is_short_grouped_and_names_every_command(muarl: Any) -> None:
    code, out, err = muarl("--help")
    assert code == 0 and err == ""
    assert len(out.splitlines()) <= 45 and max(map(len, out.splitlines())) <= 100
    places = [out.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places), "the stages stand in the order of a run"
    assert out.index("The five stages") < places[0] and "config" in out


def test_config_alone_is_a_usage_error_that_shows_the_help(muarl: Any) -> None:
    code, out, err = muarl("config")
    assert code == ExitCode.USAGE and "schema" in out + err


def test_no_arguments_at_all_is_help(muarl: Any) -> None:
    assert muarl() == muarl("--help")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["rollout", "--help"], ["config", "--help"]])
def test_nothing_heavy_is_imported_on_the_way_to_help(arguments: list[str], tmp_path: Path) -> None:
    """pydantic and rich are let pass for subcommands only: newer versions of typer need them to show options."""
    heavy = HEAVY if len(arguments) > 1 else (*HEAVY, "pydantic", "rich")
    code = (
        "import sys\nfrom muarl_cli.cli.app import main\ncode = main(sys.argv[1:])\n"
        f"print(sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    done = _process(*arguments, cwd=tmp_path, code=code)
    assert done.returncode == 0
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_python_m_and_version_agree(tmp_path: Path) -> None:
    from muarl_cli import __version__

    done = _process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"muarl {__version__}\n")


def _examples() -> list[tuple[str, list[str]]]:
    found = []
    for name, module in COMMANDS.items():
        lines = (module.__doc__ or "").partition("Examples:\n")[2].splitlines()
        found += [(name, shlex.split(line.strip())) for line in lines if line.strip().startswith("muarl ")]
    return found


@pytest.mark.parametrize(("name", "command"), _examples())
def test_every_example_in_the_help_runs(name: str, command: list[str], muarl: Any, calls: Any) -> None:
    """Against a recording pipeline: what is shown parses, resolves and reaches its stage."""
    assert command[:2] == ["muarl", name]
    needs_model = name in {"rollout", "rl-train", "eval"} and not {"--model", "--agent"} & set(command)
    extra = ["--model", "some-model"] if needs_model else []
    code, _, err = muarl(*command[1:], *extra)
    assert code == 0, err
    reached = calls.planned if "--dry-run" in command else calls.run
    assert [stage for stage, *_ in reached] == [name.replace("-", "_")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_help_shows_an_example_and_the_shared_flags(name: str, muarl: Any) -> None:
    code, out, _ = muarl(name, "--help")
    assert code == 0
    assert f"muarl {name} " in out
    for flag in ("--profile", "--config", "--out", "--seed", "--dry-run", "--json", "--debug"):
        assert flag in out, f"{name} lacks {flag}"


@pytest.mark.parametrize("name", ["rollout", "eval"])
def test_flags_of_the_grammar_are_there(name: str, muarl: Any) -> None:
    _, out, _ = muarl(name, "--help")
    flags = ("--model", "--base-url", "--agent", "--tasks", "--user", "--user-model", "--user-base-url", "--max-usd")
    for flag in flags:
        assert flag in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_subcommand_sets_a_setting_of_its_stage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = COMMANDS[name]
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(launch, "launch", lambda stage, common, flags, overrides: seen.append(flags) or 0)
    function = getattr(module, module.__name__.rsplit(".", 1)[1])
    function(**{name: each.default for name, each in inspect.signature(function).parameters.items()})
    assert set(seen[0]) <= set(leaves(MODELS[Stage(name.replace("-", "_"))]))
    own = set(inspect.signature(function).parameters)
    common = {"overrides", "profile", "config", "out", "dry_run", "json", "debug"}
    common |= {"launcher", "hostfile", "processes"}  # they say how many processes do it
    assert len(seen[0]) == len(own - common), "a flag that goes nowhere"


def test_flags_overrides_and_out_reach_the_stage(muarl: Any, calls: Any) -> None:
    code, out, err = muarl(
        *["rollout", "--agent", "careful", "--tasks", "builtin:retail:dev,builtin:library:dev", "--tasks"],
        *["builtin:retail:test", "--out", "here", "--profile", "tiny", "user.temperature=0.25", "--group", "3"],
    )
    assert code == 0, err
    stage, settings, folder = calls.run[0]
    assert (stage, folder) == ("rollout", Path("here"))
    assert settings.tasks == ["builtin:retail:dev", "builtin:library:dev", "builtin:retail:test"]
    assert (settings.agent, settings.group, settings.user.temperature) == ("careful", 3, 0.25)
    assert out == "episodes: 3\nreward: 0.5\n"
    assert "here" in err


def test_default_out_is_the_same_for_the_same_settings_and_another_for_others(muarl: Any, calls: Any) -> None:
    for more in ([], ["--in-flight", "2"], ["--seed", "2"]):
        assert muarl("rollout", "--agent", "careful", *more)[0] == 0
    one, same, other = (folder for _, _, folder in calls.run)
    assert one == same != other
    assert one.parent == Path("runs") and one.name.startswith("rollout-")


def test_dry_run_plans_and_touches_nothing(muarl: Any, calls: Any, tmp_path: Path) -> None:
    code, out, _ = muarl("rollout", "--agent", "careful", "--dry-run", "--json")
    document = json.loads(out)
    assert code == 0 and not calls.run and len(calls.planned) == 1
    assert document["plan"] == {"episodes": 12} and document["settings"]["agent"] == "careful"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["rolout"], ExitCode.USAGE),
        (["rollout", "--modle", "x"], ExitCode.USAGE),
        (["rollout", "--group", "many"], ExitCode.USAGE),
        (["rollout", "stray"], ExitCode.USAGE),
        (["rollout", "--agent", "carefull"], ExitCode.USAGE),
        (["rollout", "grop=3"], ExitCode.CONFIG),
        (["rollout", "--profile", "tinny"], ExitCode.CONFIG),
        (["rollout", "--config", "absent.yaml"], ExitCode.MISSING_INPUT),
        (["rollout"], ExitCode.MISSING_INPUT),
        (["eval", "--base-url", "http://127.0.0.1:1/v1"], ExitCode.CONFIG),
        (["config", "show", "rollot"], ExitCode.USAGE),
    ],
)
def test_a_mistake_is_explained_with_its_exit_code(arguments: list[str], code: int, muarl: Any, calls: Any) -> None:
    got, out, err = muarl(*arguments)
    assert got == code
    assert out == "" and "Traceback" not in err
    assert "next: " in err
    assert not calls.run


@pytest.mark.parametrize("code", [ExitCode.BUSY, ExitCode.TEMPORARY, ExitCode.AUTH, ExitCode.UNAVAILABLE])
def test_an_explained_failure_of_a_stage_keeps_its_code_and_its_lines(code: ExitCode, muarl: Any, calls: Any) -> None:
    calls.error = MuarlError("it is\x1b[2J\nbusy", where="runs/x", why="pid 7", next_step="wait", code=code)
    got, out, err = muarl("rollout", "--agent", "careful")
    assert (got, out) == (code, "")
    assert err.splitlines()[-4:] == ["error: it is busy", "where: runs/x", "why: pid 7", "next: wait"]


def test_a_failure_inside_a_task_group_is_explained_as_well(muarl: Any, calls: Any) -> None:
    inner = MuarlError("no key", next_step="set OPENAI_API_KEY", code=ExitCode.AUTH)
    calls.error = ExceptionGroup("unhandled", [ExceptionGroup("nested", [inner])])
    got, _, err = muarl("rollout", "--agent", "careful")
    assert got == ExitCode.AUTH and "error: no key" in err


def test_a_bug_is_short_without_debug_and_a_traceback_with_it(muarl: Any, calls: Any) -> None:
    calls.error = RuntimeError("boom")
    code, _, err = muarl("rollout", "--agent", "careful")
    assert code == ExitCode.INTERNAL and "RuntimeError: boom" in err and "--debug" in err and "Traceback" not in err
    code, _, err = muarl("rollout", "--agent", "careful", "--debug")
    assert code == ExitCode.INTERNAL and "Traceback" in err


def test_a_missing_package_names_the_extra_that_brings_it(muarl: Any, calls: Any) -> None:
    calls.error = ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    code, _, err = muarl("rollout", "--agent", "careful")
    assert code == ExitCode.MISSING_INPUT and "pip install 'muarl-cli[train]'" in err


def test_a_path_that_cannot_be_used_is_named_and_no_bug(muarl: Any, calls: Any, tmp_path: Path) -> None:
    calls.error = NotADirectoryError(20, "Not a directory", str(tmp_path / "file" / "report.html"))
    code, _, err = muarl("rollout", "--agent", "careful")
    assert code == ExitCode.MISSING_INPUT and "report.html cannot be used" in err and "why: Not a directory" in err
    assert "next: " in err and "bug" not in err
    calls.error = OSError("something without a path")
    assert "bug" in muarl("rollout", "--agent", "careful")[2]


def test_ctrl_c_says_how_to_go_on(muarl: Any, calls: Any) -> None:
    calls.error = KeyboardInterrupt()
    code, _, err = muarl("rollout", "--agent", "careful")
    assert code == 130 and "same command again" in err and "Traceback" not in err


def test_a_stage_may_finish_with_its_own_exit_code(muarl: Any, calls: Any) -> None:
    calls.answer = {"faults": 2, "exit_code": ExitCode.PARTIAL}
    code, out, _ = muarl("rollout", "--agent", "careful", "--json")
    assert code == ExitCode.PARTIAL and json.loads(out) == {"faults": 2}


def test_the_newest_checkpoint_is_taken_and_said_on_the_first_line(
    muarl: Any, calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from muarl_cli.records import checkpoint

    monkeypatch.setattr(checkpoint, "newest_checkpoint", lambda runs: runs / "demo" / "rl")
    for command in ("eval", "rl-train", "rollout"):
        code, _, err = muarl(command)
        assert code == 0
        assert err.splitlines()[0] == "model: runs/demo/rl (the newest checkpoint under runs/)"
        assert calls.run[-1][1].model == "runs/demo/rl"


def test_sft_takes_the_newest_cold_start_and_says_so(
    muarl: Any, calls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = muarl("sft")
    assert code == ExitCode.MISSING_INPUT and "muarl synth-coldstart" in err
    for name, stage, when in (("a", "synth-coldstart", 1), ("b", "synth-coldstart", 3), ("c", "rollout", 5)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "episodes.jsonl").touch()
        (run / "summary.json").touch()
        os.utime(run / "summary.json", (when, when))
        write_lineage(run, Lineage(stage, name, "0" * 16, {}))
    code, _, err = muarl("sft")
    assert code == 0 and err.splitlines()[0] == "data: runs/b (the newest cold start under runs/)"
    assert list(calls.run[-1][1].data) == ["runs/b"]
    assert muarl("sft", "--data", "mine.jsonl")[0] == 0 and list(calls.run[-1][1].data) == ["mine.jsonl"]


def test_the_same_training_command_again_resumes_and_does_not_train_what_it_made(
    muarl: Any, calls: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from muarl_cli.records import checkpoint
    from muarl_cli.records.run import RunFolder
    from muarl_cli.settings.models import FREE_KEYS

    newest = Path("runs") / "sft"
    monkeypatch.setattr(checkpoint, "newest_checkpoint", lambda runs: newest)
    assert muarl("rl-train", "--steps", "3")[0] == 0
    _, settings, out = calls.run[-1]
    RunFolder.open(out, "rl-train", settings.model_dump(mode="json"), free=FREE_KEYS).close()  # and it finishes
    newest = out
    assert muarl("rl-train", "--steps", "3", "--in-flight", "7")[0] == 0
    assert calls.run[-1][1].model == "runs/sft" and calls.run[-1][2] == out
    code, _, err = muarl("rl-train", "--steps", "4")
    assert code == 0 and f"model: {out} (the newest checkpoint" in err
    assert calls.run[-1][1].model == str(out) and calls.run[-1][2] != out
    assert muarl("eval")[0] == 0 and calls.run[-1][1].model == str(out)


def test_json_is_one_document_whatever_is_printed_by_the_way(tmp_path: Path) -> None:
    """In a real process, since the prints of C libraries go to the file descriptor."""
    code = (
        "import os, sys, types\n"
        "m = types.ModuleType('muarl_cli.pipeline.rollout')\n"
        "def run(settings, out, talk):\n"
        "    print('stray'); os.write(1, b'from C\\n'); talk.show('table'); talk.say('said')\n"
        "    os.system('echo child'); return {'reward': float('nan'), 'path': out}\n"
        "m.run = run; sys.modules[m.__name__] = m\n"
        "from muarl_cli.cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = _process("rollout", "--agent", "careful", "--json", "--out", "o", cwd=tmp_path, code=code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"reward": None, "path": "o"}
    assert done.stdout.count("\n") == 1
    for text in ("stray", "from C", "table", "said", "child"):
        assert text in done.stderr


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m muarl_cli config schema | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("stage", COMMANDS)
def test_config_show_prints_a_file_that_can_be_used(stage: str, muarl: Any, tmp_path: Path) -> None:
    code, out, _ = muarl("config", "show", stage, "--profile", "tiny")
    path = tmp_path / "settings.yaml"
    path.write_text(out)
    again = muarl("config", "show", stage, "--config", str(path))
    assert code == 0 and again[:2] == (0, out)


def test_config_show_origin_tells_where_each_value_came_from(muarl: Any) -> None:
    code, out, _ = muarl("config", "show", "rollout", "--profile", "tiny", "--origin", "group=2")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and set(rows) == set(leaves(MODELS[Stage.ROLLOUT]))
    assert "flag group=..." in rows["group"] and "profile tiny" in rows["rendering"] and "stage page" in rows["seed"]
    document = json.loads(muarl("config", "show", "rollout", "--origin", "--json", "group=2")[1])
    assert document["settings"]["group"] == {"value": 2, "origin": "flag group=..."}


def test_config_schema_is_a_json_document(muarl: Any) -> None:
    assert set(json.loads(muarl("config", "schema")[1])["properties"]) >= {stage.value for stage in Stage}
    assert json.loads(muarl("config", "schema", "rl-train")[1])["properties"]["group"]["default"] == 8
    assert config.app.info.name == "config"
