"""`muarl bench`: benchmarks made by others: what is there, how to get the rest, and a check of it.

Examples:
  muarl bench list
  muarl bench install bfcl
  muarl bench check bfcl --domain base
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muarl_cli.cli import options as o

app = typer.Typer(name="bench", help="Benchmarks: what is there, install, check.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="benchmarks; default: all")]


@app.command("list")
def list_(json: o.Json = False, debug: o.Debug = False) -> int:
    """What is there, what is missing, and the command that gets it.

    Example: muarl bench list
    """
    from muarl_cli.benchmarks.provider import providers
    from muarl_cli.cli.console import Talk
    from muarl_cli.reports.tables import Column, Table

    talk = Talk(json=json)
    rows, notes, commands = [], [], []
    with talk.data_only():
        for provider in providers().values():
            status = provider.status()
            notes += [f"{provider.name}: {provider.note}"] if status.ready else []
            commands += [f"{provider.name}, what is missing: {how}" for how in status.how_to_get]
            rows.append(
                {
                    "name": provider.name,
                    "domains": list(provider.domains),
                    "splits": list(provider.splits),
                    "present": list(status.present),
                    "missing": list(status.missing),
                    "how_to_get": list(status.how_to_get),
                    "note": provider.note,
                }
            )
        columns = tuple(Column(key, title) for key, title in _COLUMNS)
        shown = tuple({k: "\n".join(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
        talk.show(Table("Benchmarks", columns, shown, notes=(*notes, *commands)).rich())
    if json:
        talk.result({"benchmarks": rows})
    return 0


_COLUMNS = (
    ("name", "benchmark"),
    ("domains", "domains"),
    ("splits", "splits"),
    ("present", "there"),
    ("missing", "missing"),
)


@app.command()
def install(names: Names = None, json: o.Json = False, debug: o.Debug = False) -> int:
    """Make the isolated environments of benchmarks, under MUARL_HOME or the user's cache folder.

    Example: muarl bench install bfcl
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode, MuarlError

    talk = Talk(json=json)
    done: dict[str, Any] = {}
    with talk.data_only():
        for provider in _chosen(names):
            if provider.install is not None:
                provider.install(talk.say)
            elif names:
                missing = provider.status()
                if missing.missing:
                    raise MuarlError(
                        f"{provider.name} cannot be installed by this command",
                        why=", ".join(missing.missing),
                        next_step="; ".join(missing.how_to_get),
                        code=ExitCode.MISSING_INPUT,
                    )
            done[provider.name] = {"present": list(provider.status().present)}
    talk.result(done)
    return 0


@app.command()
def check(
    names: Names = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="only these domains; repeatable")] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Replay every gold trajectory through our loop and the benchmark's own scorer, straight and corrupted.

    Example: muarl bench check bfcl --domain base
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.reports.tables import Column, Style, Table

    talk = Talk(json=json)
    rows: list[dict[str, Any]] = []
    with talk.data_only():
        chosen = _chosen(names)
        absent = [provider for provider in chosen if not provider.status().ready]
        if absent and (names or len(absent) == len(chosen)):  # a check that checks nothing must not pass
            raise MuarlError(
                f"{', '.join(provider.name for provider in absent)}: not there, so nothing was checked",
                next_step="; ".join(step for provider in absent for step in provider.status().how_to_get),
                code=ExitCode.MISSING_INPUT,
            )
        for provider in chosen:
            if provider in absent:
                talk.say(f"{provider.name}: not there; {'; '.join(provider.status().how_to_get)}")
                continue
            for name in _domains(provider, domain):
                for split, count in provider.gold_check(name).items():
                    rows.append({"set": f"{provider.name}:{name}:{split}"} | count.to_json())
        columns = (
            Column("set", "task set"),
            Column("tasks", "tasks", Style.COUNT),
            Column("passed", "gold passes", Style.COUNT),
            Column("scorer_passed", "by the scorer alone", Style.COUNT),
            Column("known", "known defects", Style.COUNT),
            Column("corrupted", "corrupted", Style.COUNT),
            Column("corrupted_failed", "of these fail", Style.COUNT),
            Column("verdict", "verdict"),
        )
        shown = tuple(
            {
                **row,
                "known": len(_known(row)),
                "verdict": "as expected" if row["as_expected"] else "WRONG",
            }
            for row in rows
        )
        notes = tuple(f"{row['set']}: {', '.join(known)}: {row['why']}" for row in rows if (known := _known(row)))
        talk.show(Table("Gold replays", columns, shown, notes=notes).rich())
    if json:
        talk.result({"sets": rows})
    return int(ExitCode.OK if all(row["as_expected"] for row in rows) else ExitCode.GATE_FAILED)


@app.command()
def paper(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders of muarl eval")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Scores of runs beside those of the paper, labelled by data revision and user model.

    Example: muarl bench paper runs/eval-tau2 runs/eval-bfcl
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.reports.paper import paper_tables, published
    from muarl_cli.reports.run_view import load_runs, with_tasks

    talk = Talk(json=json)
    with talk.data_only():
        measured, beside = paper_tables([with_tasks(run) for run in load_runs(runs)])
        if not beside.rows:
            raise MuarlError(
                "none of these runs is of a set that the paper reports",
                next_step=f"muarl eval --tasks SET:SPLIT with one of: {', '.join(published()['sets'])}",
                code=ExitCode.BAD_DATA,
            )
        talk.show(measured.rich())
        talk.show(beside.rich())
    if json:
        talk.result({"measured": measured.to_json(), "beside": beside.to_json(), "notes": list(beside.notes)})
    return 0


def _known(row: dict[str, Any]) -> list[str]:
    return [*row["known_failures"], *row["known_unseen"]]


def _chosen(names: list[str] | None) -> list[Any]:
    from muarl_cli.benchmarks.provider import provider_of, providers

    return [provider_of(name) for name in names] if names else list(providers().values())


def _domains(provider: Any, wanted: list[str] | None) -> list[str]:
    from muarl_cli.errors import MuarlError

    unknown = [name for name in wanted or () if name not in provider.domains]
    if unknown:
        raise MuarlError(
            f"{provider.name} has no domain {unknown[0]!r}", next_step=f"one of: {', '.join(provider.domains)}"
        )
    return wanted or list(provider.domains)
