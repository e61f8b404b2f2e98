"""The `muarl` program: its subcommands, and how every way of ending becomes a message and an exit code.

Invariant: what a person can mend is explained in at most four lines on stderr; a traceback is shown only with
`--debug`; Ctrl-C and SIGTERM say how to go on. `--help` imports nothing of the stages.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from muarl_cli import __version__
from muarl_cli.cli import (
    bench,
    compare,
    config,
    evaluate,
    export,
    gate,
    import_,
    leaks,
    ls,
    mcp,
    plan,
    play,
    report,
    rescore,
    review,
    rl_train,
    rollout,
    serve,
    sft,
    show,
    status,
    synth_coldstart,
    users,
    verify,
)
from muarl_cli.errors import ExitCode, MuarlError

INTERRUPTED, TERMINATED = 130, 143
_COMPLETE = "_MUARL_COMPLETE"
_UsageError: Any = typer.BadParameter.__mro__[1]
"""the class of all usage errors: click's own, or that of the copy which newer versions of typer carry"""
_EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "tokenizers": "train",
    "peft": "train",
    "safetensors": "train",
    "deepspeed": "deepspeed",
    "vllm": "vllm",
    "mcp": "mcp",
    "openpyxl": "mcp",
    "inspect_evals": "tau2",
    "inspect_ai": "tau2",
    "matplotlib": "plots",
}
"""top-level module to the extra that brings it"""
_STAGES = "The five stages, in the order of a run"
_TOOLS = "Looking"

_HEAD = """\
usage: muarl COMMAND [OPTIONS] [KEY=VALUE]...

Train agents that use tools while talking to a user (MUA-RL). One conversation
loop, five stages; each reads what the one before it wrote.
"""
_FOOT = """\
Options: --version, --help; --install-completion and --show-completion for your shell
Example, offline and on two cores (`make demo` does all five stages):
  muarl synth-coldstart --profile tiny --out runs/demo/coldstart

Settings: flag > environment (MUARL_ROLLOUT__IN_FLIGHT=4) > --config FILE
> --profile > stage page. The same command again resumes. Exit codes: 0 fine,
1 gate failed, 2 finished with faults, 64 usage, 75 run it again, 78 settings, 130/143 interrupted.
More: muarl COMMAND --help"""


class Front(TyperGroup):
    """The group behind `muarl`. Its help is plain text: the renderer of the others would double its time."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        lines = [_HEAD]
        for panel in (_STAGES, _TOOLS):
            lines.append(f"{panel}:")
            for name, command in self.commands.items():
                if getattr(command, "rich_help_panel", None) == panel:
                    lines.append(f"  {name:<16} {command.get_short_help_str(60)}")
            lines.append("")
        print("\n".join([*lines, _FOOT]))


app = typer.Typer(name="muarl", cls=Front, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"muarl {__version__}")
        raise typer.Exit()


@app.callback()
def muarl(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    pass


def _add(name: str, function: Any, module: Any, panel: str) -> None:
    """A subcommand whose help is its module's docstring: a sentence and runnable examples."""
    summary, _, examples = (module.__doc__ or "").partition("\n\n")
    text = summary.split(": ", 1)[1].strip()
    short = f"{text[0].upper()}{text[1:]}"
    app.command(name, help=f"{short}\n\n\b\n{examples.strip()}", short_help=short, rich_help_panel=panel)(function)


_add("synth-coldstart", synth_coldstart.synth_coldstart, synth_coldstart, _STAGES)
_add("sft", sft.sft, sft, _STAGES)
_add("rollout", rollout.rollout, rollout, _STAGES)
_add("rl-train", rl_train.rl_train, rl_train, _STAGES)
_add("eval", evaluate.evaluate, evaluate, _STAGES)
_add("report", report.report, report, _TOOLS)
_add("show", show.show, show, _TOOLS)
_add("status", status.status, status, _TOOLS)
_add("compare", compare.compare, compare, _TOOLS)
_add("gate", gate.gate, gate, _TOOLS)
_add("leaks", leaks.leaks, leaks, _TOOLS)
_add("ls", ls.ls, ls, _TOOLS)
_add("plan", plan.plan, plan, _TOOLS)
_add("play", play.play, play, _TOOLS)
_add("rescore", rescore.rescore, rescore, _TOOLS)
_add("serve", serve.serve, serve, _TOOLS)
_add("verify", verify.verify, verify, _TOOLS)
_add("review", review.review, review, _TOOLS)
app.add_typer(config.app, rich_help_panel=_TOOLS, short_help="Settings before they are used, and their JSON Schema.")
app.add_typer(import_.app, rich_help_panel=_TOOLS, short_help="Bring conversations from elsewhere into a run.")
app.add_typer(export.app, rich_help_panel=_TOOLS, short_help="A model or conversations, for other programs.")
app.add_typer(bench.app, rich_help_panel=_TOOLS, short_help="Benchmarks: what is there, install, check their gold.")
app.add_typer(users.app, rich_help_panel=_TOOLS, short_help="Simulated users: audit a log, compare scores.")


app.add_typer(mcp.app, rich_help_panel=_TOOLS, short_help="MCP servers: install, list, check.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `muarl` with `argv` (default: the process's), print what there is to print, return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in arguments
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a stage has one display, and a pipe has none
    try:
        if _COMPLETE in os.environ:  # the shell asks for completions: typer answers and exits
            app(args=arguments, prog_name="muarl")
        command = typer.main.get_command(app)
        with command.make_context("muarl", arguments) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as done:
        return done.exit_code
    except MuarlError as error:
        return _fail(error, debug)
    except _UsageError as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        _print("interrupted; what was acknowledged is kept. next: run the same command again to resume")
        return TERMINATED if _terminated.is_set() else INTERRUPTED
    except BrokenPipeError:  # the reader went away (`| head`): not our failure, and nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(ExitCode.OK)
    except ModuleNotFoundError as error:
        return _missing(error, debug)
    except OSError as error:
        return _disk(error, debug) if error.filename is not None else _bug(error, debug)
    except Exception as error:
        return _bug(error, debug)


_terminated = threading.Event()
"""whether the interruption was a SIGTERM"""


def entry() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's script tells its background jobs to ignore Ctrl-C. They still do, but an event loop takes over only
        # Python's own handler, and without that a SIGTERM would be raised in the middle of somebody's coroutine.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())


def _terminate(number: int, frame: Any) -> None:
    """As after Ctrl-C: calls in flight are cancelled, finished episodes are written, the same command goes on."""
    _terminated.set()
    interrupt = signal.getsignal(signal.SIGINT)  # an event loop has its own; a process in the background may have none
    (interrupt if callable(interrupt) else signal.default_int_handler)(signal.SIGINT, frame)


def _fail(error: MuarlError, debug: bool) -> int:
    if debug:
        _traceback()
    for line in error.lines():
        _print(line, one_line=True)
    return int(error.code)


def _usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help text, and is printed by now
        return int(ExitCode.USAGE)
    _print(f"error: {error.format_message()}")
    if context is not None:
        _print(f"next: {context.command_path} --help")
    return int(ExitCode.USAGE)


def _missing(error: ModuleNotFoundError, debug: bool) -> int:
    extra = _EXTRAS.get((error.name or "").split(".")[0])
    if extra is None:
        return _bug(error, debug)
    why = MuarlError(
        f"this needs the package {error.name}, which is not installed",
        next_step=f"pip install 'muarl-cli[{extra}]', or in a checkout: pip install -e '.[{extra}]'",
        code=ExitCode.MISSING_INPUT,
    )
    return _fail(why, debug)


def _disk(error: OSError, debug: bool) -> int:
    """A file or folder that was named cannot be read or written: nothing that a traceback would explain."""
    said = MuarlError(
        f"{error.filename} cannot be used",
        why=error.strerror or type(error).__name__,
        next_step="name a path that exists and may be read or written",
        code=ExitCode.MISSING_INPUT,
    )
    return _fail(said, debug)


def _bug(error: BaseException, debug: bool) -> int:
    groups = getattr(error, "exceptions", None)
    while groups and len(groups) == 1:  # a task group wraps what went wrong inside it
        error, groups = groups[0], getattr(groups[0], "exceptions", None)
    if isinstance(error, MuarlError):
        return _fail(error, debug)
    if debug:
        _traceback()
    _print(f"error: {type(error).__name__}: {str(error)[:300]}", one_line=True)
    _print("why: this is a bug in muarl, or an error it does not know how to explain")
    if not debug:
        _print("next: the same command with --debug shows where; records already written are safe")
    return int(ExitCode.INTERNAL)


def _traceback() -> None:
    import traceback

    _print(traceback.format_exc())


def _print(text: str, one_line: bool = False) -> None:
    from muarl_cli.cli.console import clean

    print(clean(text, one_line), file=sys.stderr, flush=True)
