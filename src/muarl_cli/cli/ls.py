"""`muarl ls`: what there is: runs, models, domains, users, profiles.

Examples:
  muarl ls
  muarl ls domains
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muarl_cli.cli import options as o

NOUNS = ("runs", "models", "domains", "users", "profiles")


def ls(
    noun: Annotated[str, typer.Argument(metavar="[WHAT]", help=", ".join(NOUNS))] = "runs",
    runs: Annotated[Path, typer.Option("--runs", help="where runs lie")] = Path("runs"),
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import MuarlError
    from muarl_cli.reports.tables import Column, Style, Table

    makers = {"runs": _runs, "models": _models, "domains": _domains, "users": _users, "profiles": _profiles}
    if noun not in makers:
        from muarl_cli.settings.grammar import nearest

        raise MuarlError(f"there is no list of {noun!r}", next_step=nearest(noun, list(NOUNS)))
    talk = Talk(json=json)
    rows = makers[noun](runs)
    if json:
        talk.result({noun: rows})
        return 0
    if not rows:
        talk.say(f"no {noun}" + (f" below {runs}" if noun in ("runs", "models") else ""))
        return 0
    columns = tuple(
        Column(key, key, Style.COUNT if isinstance(value, int) else Style.TEXT) for key, value in rows[0].items()
    )
    talk.show(Table(noun, columns, tuple(rows)).rich())
    return 0


def _runs(root: Path) -> list[dict[str, Any]]:
    from muarl_cli.records.run import SUMMARY
    from muarl_cli.reports.run_view import find_runs, read_header
    from muarl_cli.reports.status import count_episodes, holder_of

    found = []
    for folder in find_runs(root):
        header = read_header(folder)
        done, valid = count_episodes(folder)
        state = "running" if holder_of(folder) else "finished" if (folder / SUMMARY).exists() else "stopped"
        found.append(
            {
                "run": str(folder),
                "stage": header.stage if header else "",
                "id": header.run_id if header else "",
                "state": state,
                "episodes": done,
                "valid": valid,
            }
        )
    return found


def _models(root: Path) -> list[dict[str, Any]]:
    found = []
    for config in sorted(root.rglob("config.json")) if root.is_dir() else ():
        folder = config.parent
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if size:
            known = "yes" if (folder / "lineage.json").exists() else "no"
            found.append({"model": str(folder), "megabytes": round(size / 1e6), "lineage": known})
    return found


def _domains(root: Path) -> list[dict[str, Any]]:
    from muarl_cli.benchmarks.provider import providers
    from muarl_cli.worlds.domain import BUILTIN, builtin
    from muarl_cli.worlds.mcp.environments import installed
    from muarl_cli.worlds.mcp.scenario import SHIPPED, server_of

    found = []
    for name in BUILTIN:
        domain = builtin(name)
        splits = ", ".join(domain.splits())
        found.append({"domain": f"builtin:{name}", "tools": len(domain.tools), "splits": splits, "installed": "yes"})
    for name in SHIPPED:
        here = "yes" if installed(server_of(name)) else f"no: muarl mcp install {name}"
        found.append({"domain": f"mcp:{name}", "tools": None, "splits": "train, dev, test", "installed": here})
    for provider in providers().values():
        status = provider.status()
        here = "yes" if status.ready else f"no: {'; '.join(status.how_to_get)}"
        splits = ", ".join(provider.splits)
        found += [
            {"domain": f"{provider.name}:{name}", "tools": None, "splits": splits, "installed": here}
            for name in provider.domains
        ]
    return found


def _users(root: Path) -> list[dict[str, Any]]:
    from muarl_cli.settings.grammar import USER_BACKENDS

    return [{"user": name} for name in USER_BACKENDS]


def _profiles(root: Path) -> list[dict[str, Any]]:
    from importlib import resources

    folder = resources.files("muarl_cli.stages") / "profiles"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".yaml"))
    return [{"profile": name.removesuffix(".yaml")} for name in names]
