"""`muarl import`: bring what was said elsewhere into the project.

Examples:
  muarl import transcripts examples/transcripts/retail.jsonl --scenario retail --out runs/people
  muarl rollout --config runs/people/user.yaml --tasks runs/people:retail:imported --agent careful --out runs/like
  muarl users audit runs/like --against runs/people
  muarl import trajectories gpt-4o-airline.json --out runs/gpt-4o-airline
  muarl import dataset MUA-RL-Dataset.jsonl --out runs/released
  muarl sft --data runs/released --where accepted=true
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

app = typer.Typer(name="import", help="Bring what was said elsewhere into the project.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Bring what was said elsewhere into the project."""


@app.command()
def transcripts(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="redacted chats, a JSON object a line")],
    scenario: Annotated[str, typer.Option("--scenario", help="built-in scenario that the chats are about")],
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    allow_unredacted: Annotated[
        bool, typer.Option("--allow-unredacted", help="import what looks like e-mail, phone and card numbers")
    ] = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Redacted chats of real users to tasks of their shapes, injector rates, persona weights, and a log to compare.

    Example: muarl import transcripts examples/transcripts/retail.jsonl --scenario retail --out runs/people
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode
    from muarl_cli.pipeline import importing

    talk = Talk(json=json)
    with talk.data_only():
        talk.result(importing.run(files, scenario, out, allow_unredacted, talk))
    return int(ExitCode.OK)


@app.command()
def trajectories(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TAU1's list of trajectories, TAU2's results.json or folder")
    ],
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    domain: Annotated[
        str, typer.Option("--domain", help="airline, retail, telecom or banking_knowledge, if the file does not tell")
    ] = "",
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Official TAU1 and TAU2 trajectories as a log of ours, to be scored layer by layer.

    Example: muarl import trajectories gpt-4o-airline.json --out runs/gpt-4o-airline
    """
    from muarl_cli.benchmarks.trajectories import import_trajectories
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode

    talk = Talk(json=json)
    with talk.data_only():
        found = import_trajectories(file, out, domain)
        talk.say(f"next: muarl rescore {out}")
        talk.result(found)
    return int(ExitCode.OK)


@app.command()
def dataset(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="rows: JSON lines, a JSON list, or parquet")],
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Conversations of the released MUA-RL dataset, of APIGen-MT, or in messages-and-tools form, to a run folder.

    Example: muarl import dataset MUA-RL-Dataset.jsonl --out runs/released
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.pipeline.dataset import REFUSED, import_dataset
    from muarl_cli.settings.bases import Stage
    from muarl_cli.settings.pages import page

    talk = Talk(json=json)
    with talk.data_only():
        result = import_dataset(file, out, int(page(Stage.SYNTH_COLDSTART)["max_message_words"]))
        if result["refused"]:
            talk.warn(f"{result['refused']} rows could not be read; they stand in {out / REFUSED} with their reasons")
        talk.say(f"next: muarl sft --data {out} --where accepted=true")
        talk.result(result)
    return 0
