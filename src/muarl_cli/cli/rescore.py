"""`muarl rescore`: judge a log again under today's rules.

Examples:
  muarl rescore runs/eval
  muarl rescore runs/eval --json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muarl_cli.cli import options as o


def rescore(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="run folder, or its episodes.jsonl")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.reports.layer_tables import summary_layers, summary_rules
    from muarl_cli.scoring.rescore import LAYERS_NAME
    from muarl_cli.scoring.rescore import rescore as run

    talk = Talk(json=json)
    with talk.data_only():
        result: dict[str, Any] = run(log)
        folder = log if log.is_dir() else log.parent
        talk.show(summary_layers(result["labels"]).rich())
        talk.show(summary_rules(result["labels"]).rich())
        if result["without_task"]:
            talk.warn(
                f"{result['without_task']} episodes are of tasks that are not known here: rules that must know what "
                "the user wanted were left out"
            )
        talk.say(f"{result['episodes']} episodes judged; wrote verdicts.jsonl and {LAYERS_NAME} in {folder}")
        talk.result(result if json else {"episodes": result["episodes"], "out": str(folder)})
    return 0
