"""`muarl mcp`: the MCP servers behind the mcp: scenarios: install, list, check.

Examples:
  muarl mcp install
  muarl mcp list
  muarl mcp check shop_database
  muarl mcp check ./notes.yaml
"""

from __future__ import annotations

from typing import Annotated

import typer

from muarl_cli.cli import options as o

app = typer.Typer(name="mcp", help="MCP servers: install, list, check.", no_args_is_help=True)
_NAMES = typer.Argument(
    metavar="[NAME|FILE]...", help="scenarios of the package, or server files; default: the package's"
)
Servers = Annotated[list[str] | None, _NAMES]


@app.command()
def install(servers: Servers = None, json: o.Json = False, debug: o.Debug = False) -> int:
    """Make each server's own environment, from the package registry; what is there already is kept.

    Example: muarl mcp install shop_database
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode
    from muarl_cli.worlds.mcp.environments import install as make
    from muarl_cli.worlds.mcp.environments import installed
    from muarl_cli.worlds.mcp.scenario import SHIPPED, server_of

    talk = Talk(json=json)
    with talk.data_only():
        made = {}
        for name in servers or SHIPPED:
            server = server_of(name)
            was_there = installed(server)
            if not was_there:
                talk.say(f"{server.name}: installing {', '.join(server.packages)}")
            folder = make(server)
            made[server.name] = "needs no environment" if not server.packages else str(folder)
            talk.say(f"{server.name}: {'there already' if was_there else 'installed'}")
    if json:
        talk.result(made)
    return int(ExitCode.OK)


@app.command(name="list")
def list_servers(servers: Servers = None, json: o.Json = False, debug: o.Debug = False) -> int:
    """What servers there are, what they hold, and whether they are installed. Starts none.

    Example: muarl mcp list
    """
    from rich.table import Table

    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode
    from muarl_cli.worlds.mcp.environments import installed
    from muarl_cli.worlds.mcp.scenario import SHIPPED, server_of

    talk = Talk(json=json)
    table, rows = Table("scenario", "about", "packages", "installed"), {}
    with talk.data_only():
        for name in servers or SHIPPED:
            server = server_of(name)
            there = installed(server)
            rows[server.name] = {"about": server.about, "packages": list(server.packages), "installed": there}
            table.add_row(f"mcp:{server.name}", server.about, ", ".join(server.packages), "yes" if there else "no")
        talk.show(table)
    if json:
        talk.result(rows)
    return int(ExitCode.OK)


@app.command()
def check(servers: Servers = None, json: o.Json = False, debug: o.Debug = False) -> int:
    """Start each server and try what the pool relies on: tools, reset, snapshot, and the gold calls of some tasks.

    Example: muarl mcp check ./notes.yaml
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode
    from muarl_cli.worlds.mcp.check import check_server
    from muarl_cli.worlds.mcp.scenario import SHIPPED

    talk = Talk(json=json)
    with talk.data_only():
        found = {name: check_server(name) for name in servers or SHIPPED}
        for name, checks in found.items():
            for line in checks.lines():
                talk.say(f"{name}: {line}")
    if json:
        talk.result({name: checks.to_json() for name, checks in found.items()})
    return int(ExitCode.OK if all(checks.passed for checks in found.values()) else ExitCode.GATE_FAILED)
