"""`muarl config`: see the settings before they are used.

Examples:
  muarl config show rollout --profile tiny --origin in_flight=4
  muarl config schema > muarl.schema.json
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from muarl_cli.cli import options as o

app = typer.Typer(
    name="config", help="Show resolved settings, where they come from, and their JSON Schema.", no_args_is_help=True
)
StageName = Annotated[str, typer.Argument(metavar="STAGE", help="synth-coldstart, sft, rollout, rl-train or eval")]


@app.command()
def show(
    stage: StageName,
    overrides: o.Overrides = None,
    profile: o.Profile = "",
    config: o.Config = None,
    origin: Annotated[bool, typer.Option("--origin", help="where each value came from")] = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """The settings a stage would run with.

    Example: muarl config show rollout --profile tiny --origin
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.settings.resolve import resolve

    talk = Talk(json=json)
    resolved = resolve(_stage(stage), profile_name=profile, config=config, overrides=overrides or ())
    flat, origins = resolved.flat(), resolved.origins
    if json:
        rows = {key: {"value": value, "origin": origins[key]} for key, value in flat.items()} if origin else flat
        talk.result({"stage": resolved.stage.command, "hash": resolved.hash(), "settings": rows})
    elif origin:
        wide = max(len(key) for key in flat)
        texts = {key: _text(value) for key, value in flat.items()}
        room = min(48, max(len(text) for text in texts.values()))
        for key, text in texts.items():
            print(f"{key:<{wide}}  {text:<{room}}  {origins[key]}")
    else:
        print(resolved.yaml(), end="")
    return 0


@app.command()
def schema(
    stage: Annotated[str, typer.Argument(metavar="[STAGE]", help="one stage; default: a file with all sections")] = "",
    debug: o.Debug = False,
) -> int:
    """The JSON Schema of settings files, for editors.

    Example: muarl config schema rollout
    """
    import json

    from muarl_cli.settings.schema import profile_schema, stage_schema

    document = stage_schema(_stage(stage)) if stage else profile_schema()
    print(json.dumps(document, indent=2))
    return 0


def _stage(name: str) -> Any:
    from muarl_cli.errors import MuarlError
    from muarl_cli.settings.bases import Stage
    from muarl_cli.settings.grammar import nearest

    try:
        return Stage(name.replace("-", "_"))
    except ValueError:
        known = [stage.command for stage in Stage]
        raise MuarlError(f"unknown stage {name!r}", next_step=nearest(name, known)) from None


def _text(value: Any) -> str:
    from muarl_cli.cli.console import clean

    shown = '""' if value == "" else ",".join(map(str, value)) if isinstance(value, list) and value else value
    return clean(shown, one_line=True)
