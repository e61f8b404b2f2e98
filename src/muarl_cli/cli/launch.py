"""From parsed flags to a stage and back: what all subcommands do, once.

Invariant: with `--dry-run` nothing is written; otherwise exactly one pipeline function is called, with resolved
settings, a folder and a `Talk`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from muarl_cli.cli import options as o
from muarl_cli.cli.console import Talk
from muarl_cli.errors import ExitCode, MuarlError

MODULES = {
    "synth_coldstart": "synth_coldstart",
    "sft": "sft",
    "rollout": "rollout",
    "rl_train": "rl_train",
    "eval": "evaluate",
}
"""stage to the module of `muarl_cli.pipeline` that has its `run` and `plan`"""


@dataclass(frozen=True)
class Common:
    """The flags that say how to run and not what."""

    profile: str = ""
    config: Path | None = None
    out: Path | None = None
    dry_run: bool = False
    json: bool = False


MANY: tuple[tuple[str, Any, Any], ...] = (
    ("launcher", o.Launcher, None),
    ("hostfile", o.Hostfile, None),
    ("processes", o.Processes, None),
)
"""flags of the stages that may run as several processes"""


def stage_command(stage_name: str, *flags: o.Flag, many: bool = False) -> Callable[..., int]:
    """The function behind a stage's subcommand: `flags`, and the ones that every stage has; `many`: also those that
    start it as several processes.

    Typer reads a command out of a function's signature, so the signature is made from the table.
    """

    def command(
        overrides: list[str] | None,
        profile: str,
        config: Path | None,
        out: Path | None,
        dry_run: bool,
        json: bool,
        debug: bool,
        **values: Any,
    ) -> int:
        if many and not dry_run:
            launch_ranks(values["launcher"], values["hostfile"], values["processes"])
        settings = {flag.setting: flag.value(values[flag.name]) for flag in flags}
        return launch(stage_name, Common(profile, config, out, dry_run, json), settings, overrides)

    parameters = [
        ("overrides", o.Overrides, None),
        *((flag.name, flag.annotation, None) for flag in flags),
        *(MANY if many else ()),
        ("profile", o.Profile, ""),
        ("config", o.Config, None),
        ("out", o.Out, None),
        ("dry_run", o.DryRun, False),
        ("json", o.Json, False),
        ("debug", o.Debug, False),
    ]
    signature = Signature(
        [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, kind, default in parameters
        ]
    )
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: kind for name, kind, _ in parameters}
    return command


def launch_ranks(launcher: str | None, hostfile: Path | None, processes: int | None) -> None:
    """Start this command once a rank where that is asked for; returns in every rank, and where it is not."""
    from muarl_cli.cli.launcher import start
    from muarl_cli.training.launched import is_rank

    if is_rank():
        return
    if launcher:
        start(launcher, hostfile, processes)
    elif hostfile is not None or processes is not None:
        raise MuarlError(
            "--hostfile and --processes are for a launcher",
            next_step="add --launcher deepspeed (or torchrun)",
            code=ExitCode.USAGE,
        )


def launch(
    stage_name: str,
    common: Common,
    flags: Mapping[str, Any],
    overrides: Sequence[str] | None,
    runs: Path = Path("runs"),
) -> int:
    """Resolve, run or plan, print; the exit code. `flags` maps dotted keys to values, None where not given.

    The pipeline's `run` returns the result to print; an `exit_code` in it is taken out and becomes the process's.
    """
    from muarl_cli.settings.bases import Stage
    from muarl_cli.settings.resolve import resolve

    stage = Stage(stage_name)
    talk = _talk(common.json)
    given = {key: (flag_name(key), value) for key, value in flags.items() if value is not None}
    with talk.data_only():
        resolved = resolve(
            stage, profile_name=common.profile, config=common.config, overrides=overrides or (), flags=given
        )
        resolved = _with_data(_with_model(resolved, runs, talk), runs, talk)
        know_servers(resolved.settings.mcp_servers)
        out = common.out or runs / f"{stage.command}-{resolved.hash()}"
        module = import_module(f"muarl_cli.pipeline.{MODULES[stage.value]}")
        if common.dry_run:
            plan = module.plan(resolved.settings)
            talk.result({"stage": stage.command, "out": str(out), "settings": resolved.plain(), "plan": plan})
            return int(ExitCode.OK)
        talk.say(f"{stage.command} -> {out}")
        result = dict(module.run(resolved.settings, out, talk))
        code = int(result.pop("exit_code", ExitCode.OK))
        talk.result(result)
    return code


def _talk(json: bool) -> Talk:
    """Of several ranks, the first one talks; the others are heard only in errors."""
    from muarl_cli.training.launched import follows

    if not follows():
        return Talk(json=json)
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as the process
    return Talk(json=json, out=nowhere, err=nowhere)


def know_servers(files: Sequence[str]) -> None:
    """Make the scenarios of these server files known as mcp:NAME."""
    for file in files:
        from muarl_cli.worlds.mcp.scenario import register

        register(Path(file))


def _with_model(resolved: Any, runs: Path, talk: Talk) -> Any:
    """Where the policy is to play and no model is named: the newest checkpoint, said on the first line."""
    settings = resolved.settings
    if not hasattr(settings, "tasks") or settings.model or "policy" not in getattr(settings, "agent", "policy"):
        return resolved
    if getattr(settings, "base_url", ""):
        raise MuarlError(
            "an address is given but no model",
            where=resolved.origins["base_url"],
            next_step="name what it serves: --model NAME",
            code=ExitCode.CONFIG,
        )
    from muarl_cli.records.checkpoint import newest_checkpoint

    folder = newest_checkpoint(runs)
    if folder is None:
        raise MuarlError(
            "no model is named, and there is no checkpoint under runs/",
            next_step="name one with --model FOLDER, or make one: muarl synth-coldstart --profile tiny, then"
            " muarl sft --profile tiny",
            code=ExitCode.MISSING_INPUT,
        )
    if started_from := _resumes(resolved, folder):
        talk.say(
            f"model: {started_from} (what {folder}, the newest checkpoint under {runs}/, was made from: resuming it)"
        )
        return resolved.with_value("model", started_from, "the run that is resumed")
    talk.say(f"model: {folder} (the newest checkpoint under {runs}/)")
    return resolved.with_value("model", str(folder), "newest checkpoint")


def _with_data(resolved: Any, runs: Path, talk: Talk) -> Any:
    """Where there is to be learned from demonstrations and none are named: the newest cold start, said likewise."""
    if getattr(resolved.settings, "data", True):
        return resolved
    from muarl_cli.records.checkpoint import newest_run

    folder = newest_run(runs, ("synth-coldstart",), lambda run: (run / "episodes.jsonl").exists())
    if folder is None:
        raise MuarlError(
            "there is nothing to learn from: no data are named, and there is no cold start under runs/",
            next_step="name an episode log or a run folder with --data, or make one: muarl synth-coldstart",
            code=ExitCode.MISSING_INPUT,
        )
    talk.say(f"data: {folder} (the newest cold start under {runs}/)")
    return resolved.with_value("data", [str(folder)], "newest cold start")


def _resumes(resolved: Any, folder: Path) -> str:
    """The model that `folder` was trained from, where it is the run of this very command: the same command again goes
    on, and does not begin to train what it made itself. "" where it is another run."""
    from muarl_cli.records.run import read_settings, settings_diff
    from muarl_cli.reports.run_view import read_header
    from muarl_cli.settings.models import FREE_KEYS

    header, before = read_header(folder), read_settings(folder) or {}
    model = str(before.get("model") or "")
    if header is None or header.stage != resolved.stage.command or not model:
        return ""
    return "" if settings_diff(before, resolved.plain() | {"model": model}, FREE_KEYS) else model


def flag_name(key: str) -> str:
    """The flag of a setting: user.model -> --user-model, user.backend -> --user, teacher.agent -> --agent."""
    if key in ("teacher.agent", "mcp_servers"):
        return {"teacher.agent": "--agent", "mcp_servers": "--mcp-server"}[key]
    return "--" + key.removesuffix(".backend").replace(".", "-").replace("_", "-")
