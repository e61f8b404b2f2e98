"""`muarl serve`: start a vLLM server that knows what muarl asks of one.

Examples:
  muarl serve runs/demo/sft --port 8000
  muarl serve Qwen/Qwen3-8B --port 8000 --print -- --tensor-parallel-size 2
  muarl rl-train --model runs/demo/sft --engine http://127.0.0.1:8000/v1
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="model folder, run or checkpoint")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[-- VLLM FLAGS]", help="passed to vLLM as they are")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="port on the loopback address")] = 8000,
    host: Annotated[str, typer.Option("--host", help="address to listen on")] = "127.0.0.1",
    max_context: Annotated[int, typer.Option("--max-context", help="longest conversation, tokens")] = 32768,
    max_lora_rank: Annotated[int, typer.Option("--max-lora-rank", help="serve adapters up to this rank; 0 = none")] = 0,
    python: Annotated[
        str, typer.Option("--python", help="interpreter that has vLLM; default: this one", envvar="MUARL_VLLM_PYTHON")
    ] = "",
    only_print: Annotated[bool, typer.Option("--print", help="print the command, start nothing")] = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.engines.vllm_command import Command, serve_command
    from muarl_cli.records.checkpoint import resolve_model_path
    from muarl_cli.training.lora import require_whole

    talk = Talk(json=False)
    if Path(model).is_dir():
        folder = resolve_model_path(Path(model), talk.warn)
        require_whole(folder)
        model = str(folder)
    command: Command = serve_command(model, host, port, max_context, max_lora_rank, more or [], python)
    if only_print:
        print(command.shell())
        return 0
    command = command.fitted()
    talk.say(command.shell())
    command.run()
