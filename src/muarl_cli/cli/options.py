"""The flags that several subcommands share, each written once: one name, one meaning, one setting behind it.

A stage's subcommand is a table of `Flag`s (`launch.stage_command` makes the command out of it); `muarl play`, which is
no stage, takes the same annotations one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

_RUN = "Running it"
PARTIES = "Agent, user and tasks"

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="settings by name, as in_flight=4 user.temperature=0"),
]
Profile = Annotated[
    str, typer.Option("--profile", help="tiny, paper-8b, ... (muarl ls profiles) or a YAML file", rich_help_panel=_RUN)
]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file with settings of this stage", rich_help_panel=_RUN)
]
Out = Annotated[
    Path | None, typer.Option("--out", help="folder to write; default runs/<stage>-<hash>", rich_help_panel=_RUN)
]
Seed = Annotated[int | None, typer.Option("--seed", help="seed of everything random", rich_help_panel=_RUN)]
MaxUsd = Annotated[float | None, typer.Option("--max-usd", help="spend cap for paid addresses", rich_help_panel=_RUN)]
InFlight = Annotated[int | None, typer.Option("--in-flight", help="conversations at a time", rich_help_panel=_RUN)]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="resolved settings, counts, tokens, cost; touches nothing", rich_help_panel=_RUN),
]
Json = Annotated[bool, typer.Option("--json", help="stdout is one JSON document", rich_help_panel=_RUN)]
Debug = Annotated[bool, typer.Option("--debug", help="tracebacks", rich_help_panel=_RUN)]

_MANY = "Several processes"
Launcher = Annotated[
    str | None,
    typer.Option("--launcher", help="deepspeed or torchrun: start this command once a rank", rich_help_panel=_MANY),
]
Hostfile = Annotated[
    Path | None, typer.Option("--hostfile", help="hosts for deepspeed: NAME slots=8 a line", rich_help_panel=_MANY)
]
Processes = Annotated[
    int | None, typer.Option("--processes", min=1, help="ranks a host; default: one a GPU", rich_help_panel=_MANY)
]

Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="checkpoint folder or served model; default: newest under runs/", rich_help_panel=PARTIES
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="address that serves the model", rich_help_panel=PARTIES)
]
Agent = Annotated[
    str | None,
    typer.Option(
        "--agent",
        help="policy, oracle, careful, hasty, do-nothing, transfer-only, gold-replay",
        rich_help_panel=PARTIES,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks", help="source:scenario:split[:id]; repeat it or separate by commas", rich_help_panel=PARTIES
    ),
]
MaxTasks = Annotated[int | None, typer.Option("--max-tasks", help="this many tasks; 0 = all", rich_help_panel=PARTIES)]
User = Annotated[
    str | None,
    typer.Option("--user", help="scripted, llm, hf, replay, human, or scripted=0.6,llm=0.4", rich_help_panel=PARTIES),
]
UserModel = Annotated[
    str | None, typer.Option("--user-model", help="model that plays the user; implies llm", rich_help_panel=PARTIES)
]
UserBaseUrl = Annotated[
    str | None, typer.Option("--user-base-url", help="address that serves the user", rich_help_panel=PARTIES)
]
WorldInjectors = Annotated[
    str | None,
    typer.Option(
        "--world-injectors", help="faults of the tools, on purpose: latency=0.1,tool_5xx=0.05", rich_help_panel=PARTIES
    ),
]
Guard = Annotated[
    bool | None,
    typer.Option("--guard", help="refuse writes that break the scenario's rules", rich_help_panel=PARTIES),
]
McpServer = Annotated[
    list[str] | None,
    typer.Option("--mcp-server", help="file of an MCP server, then known as mcp:NAME", rich_help_panel=PARTIES),
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="sampling temperature of the agent", rich_help_panel=PARTIES)
]


@dataclass(frozen=True)
class Flag:
    """One flag of a stage's subcommand and the setting that it gives."""

    name: str
    """the parameter, and with dashes the flag: `user_model` is --user-model"""
    setting: str
    """the dotted key that it sets: `user.model`"""
    annotation: Any
    """its type with its `typer.Option`; the value is None where the flag was not given"""
    commas: bool = False
    """whether a repeatable flag's values are lists themselves, separated by commas"""

    def value(self, given: Any) -> Any:
        """What the setting gets; None where the flag was not given."""
        if self.commas and given is not None:
            given = [part.strip() for item in given for part in item.split(",") if part.strip()]
        return None if given == [] else given


def flag(name: str, kind: Any, help_text: str, setting: str = "", switch: str = "", commas: bool = False) -> Flag:
    """A flag that only one subcommand has. `switch` is its spelling where that is not --name: --floors/--no-floors."""
    option = typer.Option(switch or f"--{name.replace('_', '-')}", help=help_text)
    return Flag(name, setting or name, Annotated[kind | None, option], commas)


Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        help="who draws the policy's turns: a vLLM server (muarl serve), repeatable; or vllm, in this process",
        rich_help_panel=PARTIES,
    ),
]
ENGINES = Flag("engine", "engines", Engines, commas=True)
POLICY = (Flag("model", "model", Model), Flag("base_url", "base_url", BaseUrl), Flag("agent", "agent", Agent))
TASKS = (Flag("tasks", "tasks", Tasks, commas=True), Flag("max_tasks", "max_tasks", MaxTasks))
WORLD = (
    Flag("temperature", "temperature", Temperature),
    Flag("world_injectors", "world_injectors", WorldInjectors),
    Flag("guard", "guard", Guard),
)
USER = (
    Flag("user", "user.backend", User),
    Flag("user_model", "user.model", UserModel),
    Flag("user_base_url", "user.base_url", UserBaseUrl),
)
CHECKOUTS = (
    flag("tau1_root", str, "checkout of TAU1", "checkouts.tau1_root"),
    flag("tau2_root", str, "checkout of TAU2, instead of the package", "checkouts.tau2_root"),
    flag("tau2_python", str, "interpreter that runs the TAU2 checkout", "checkouts.tau2_python"),
)
SEED = Flag("seed", "seed", Seed)
MCP = Flag("mcp_server", "mcp_servers", McpServer)
TALKING = (SEED, MCP, Flag("in_flight", "in_flight", InFlight), Flag("max_usd", "max_usd", MaxUsd))
"""what every stage that holds conversations is run with"""
