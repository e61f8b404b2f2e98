"""What is shipped is what works: the wheel in an empty environment, the editable install, and the files around them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "muarl_cli"


def _run(*command: str | Path, cwd: Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    environ = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=timeout, env=environ, check=False)


def _copy_of_the_tree(folder: Path) -> Path:
    """What git would hand over (tracked files, and new ones that are not ignored), so that no build output leaks in."""
    listed = _run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT)
    for name in listed.stdout.split("\0"):
        if (
            name
            and (ROOT / name).is_file()
            and name.startswith(("src/", "stages/", "templates/", "pyproject", "setup", "README"))
        ):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = _copy_of_the_tree(tmp_path_factory.mktemp("tree"))
    out = tmp_path_factory.mktemp("dist")
    done = _run(
        *[sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, tree],
        cwd=out,
    )
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


def _data_files() -> set[str]:
    data = {f"muarl_cli/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "stages").rglob("*.yaml")}
    data |= {
        f"muarl_cli/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "templates").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = (p for p in SOURCE.rglob("*") if p.suffix in {".yaml", ".json", ".md", ".txt", ".jinja", ".typed"})
    return data | {f"muarl_cli/{path.relative_to(SOURCE).as_posix()}" for path in inside}


def test_every_folder_of_source_is_a_package() -> None:
    bare = [str(p.parent.relative_to(ROOT)) for p in SOURCE.rglob("*.py") if not (p.parent / "__init__.py").exists()]
    assert not bare, "find_packages leaves these out of the wheel"


def test_the_wheel_holds_all_code_and_all_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {f"muarl_cli/{path.relative_to(SOURCE).as_posix()}" for path in SOURCE.rglob("*.py")}
    assert code <= names
    assert _data_files() <= names
    assert {"muarl_cli/stages/__init__.py", "muarl_cli/templates/__init__.py"} <= names
    stray = [name for name in names if name.startswith(("tests/", "docs/", "examples/")) or "__pycache__" in name]
    assert not stray


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_works(wheel: Path, tmp_path: Path) -> None:
    """Core dependencies alone, from the registry; no source tree in sight."""
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python, muarl = home / "bin" / "python", home / "bin" / "muarl"
    done = _run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = json.loads(_run(python, "-m", "pip", "list", "--format=json", cwd=tmp_path).stdout)
    assert not {row["name"].lower() for row in listed} & {"torch", "transformers", "peft", "inspect-evals"}

    shown = _run(muarl, "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "synth-coldstart" in shown.stdout
    version = _run(muarl, "--version", cwd=tmp_path)
    assert version.returncode == 0 and re.fullmatch(r"muarl \d+\.\d+\.\d+\n", version.stdout)
    settings = _run(muarl, "config", "show", "rl-train", "--profile", "paper-8b", "--json", cwd=tmp_path)
    assert json.loads(settings.stdout)["settings"]["epochs"] == 25

    work = tmp_path / "work"
    work.mkdir()
    plan = _run(
        *[muarl, "rollout", "--dry-run", "--json", "--agent", "careful", "--tasks", "builtin:retail:dev"], cwd=work
    )
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["settings"]["agent"] == "careful"
    assert list(work.iterdir()) == [], "a dry run touches nothing"


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_an_editable_install_finds_the_two_mapped_folders(mode: str, tmp_path: Path) -> None:
    """The default and the strict mode of setuptools; its deprecated compat mode cannot map folders."""
    tree = _copy_of_the_tree(tmp_path / "tree")
    site = tmp_path / "site"
    config = [] if mode == "lenient" else ["--config-settings", f"editable_mode={mode}"]
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--prefix", str(site), "--ignore-installed"]
    done = _run(sys.executable, "-m", "pip", "install", *flags, *config, "-e", tree, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (packages,) = site.rglob("site-packages")
    code = (
        f"import site, sys; site.addsitedir({str(packages)!r})\n"
        "from importlib.resources import files\n"
        "import muarl_cli, muarl_cli.settings\n"
        f"assert muarl_cli.__file__.startswith({str(tmp_path)!r}), muarl_cli.__file__\n"
        "print(len(files('muarl_cli.stages').joinpath('profiles', 'tiny.yaml').read_text()))\n"
        "print(sorted(p.name for p in files('muarl_cli.templates').iterdir() if p.is_dir()))\n"
    )
    # without our own site-packages, where muarl may be installed; -S leaves .pth files to `addsitedir` above
    shown = _run(sys.executable, "-S", "-I", "-c", code, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert int(shown.stdout.split()[0]) > 500 and "prompts" in shown.stdout


def test_core_dependencies_are_the_small_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    assert not names & {"torch", "transformers", "peft", "deepspeed", "vllm", "inspect-evals", "mcp"}
    extras = project["optional-dependencies"]
    assert {"train", "deepspeed", "vllm", "mcp", "tau2", "dev"} <= set(extras)
    assert extras["vllm"] == ["vllm==0.32.0"]


def test_ci_calls_make_test_and_nothing_else_that_decides() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    commands = [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
    assert commands == ["set -eu", 'cd "$(dirname "$0")/.."', "exec make test"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_make_test_checks_format_lint_types_and_both_suites() -> None:
    shown = _run("make", "-n", "test", "VENV=.venv", "-o", "setup", cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    for step in ("ruff format --check", "ruff check", "mypy", '-m "not slow"', "-m slow", "-k in_this_process"):
        assert step in shown.stdout, f"make test does not run {step}"
    assert "in_this_process" not in _run("make", "-n", "test", "VENV=.venv", "VLLM=", "-o", "setup", cwd=ROOT).stdout


def test_no_path_of_this_machine_and_no_registry_host_in_what_ships() -> None:
    listed = _run("git", "ls-files", "-co", "--exclude-standard", "-z", "src", "stages", "templates", cwd=ROOT).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    files += [ROOT / name for name in ("pyproject.toml", "setup.py", "Makefile", ".ci/run")]
    marks = (
        "/work/" + "main",
        "/work/" + "shared",
        "../" + "shared",
        "/opt/" + "wheels",
        "/opt/" + "pypi",
        "index-" + "url",
    )
    found = [(path.name, mark) for path in files for mark in marks if mark in path.read_text("utf-8", errors="replace")]
    assert not found
