"""The server file of the notes server, and parties for its worlds."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import yaml

from muarl_cli.conversation.protocols import ToolResult
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.worlds.mcp.background import background
from muarl_cli.worlds.mcp.scenario import McpScenario, mcp_scenario, register

SERVER = Path(__file__).with_name("notes_server.py")
TOOLS = {
    "list_notes": "read", "where": "read", "read_path": "read", "process_id": "read", "refuse": "write",
    "soft_error": "read", "long_text": "read", "add_note": "write", "write_slowly": "write", "die": "write",
    "spoil": "write",
}  # fmt: skip


def notes_file(folder: Path, **more: Any) -> Path:
    """A server file for the notes server, with a name of its own; `more` replaces keys, None leaves one out."""
    data: dict[str, Any] = {
        "name": f"notes_{uuid.uuid4().hex[:8]}",
        "command": ["{python}", str(SERVER)],
        "tools": TOOLS,
        "failed": "^Error",
        "timeout": 20,
        "max_result": 500,
        "processes": 2,
        "reset": {"files": {"notes.txt": "milk\n"}},
        "snapshot": {"kind": "files"},
        "scenario": {
            "policy": "Keep the notes.",
            "greeting": "hello!",
            "tasks": [
                {"instruction": "You want bread on the list.", "gold": [{"add_note": {"text": "bread"}}]},
                {"instruction": "You want to know what is on the list.", "gold": [{"list_notes": {}}], "say": ["milk"]},
            ],
        },
    }
    data = {key: value for key, value in (data | more).items() if value is not None}
    path = folder / f"{data.get('name', 'unnamed')}.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def notes(folder: Path, **more: Any) -> McpScenario:
    return mcp_scenario(register(notes_file(folder, **more)))


def a_world(scenario: McpScenario) -> Any:
    return scenario.world(scenario.tasks("test")[0])


async def do(world: Any, name: str, **arguments: Any) -> ToolResult:
    return await world.call(ToolCall("c", name, arguments), "agent")


def close_pool(scenario: McpScenario) -> None:
    background().submit(scenario.pool.close()).result(30)


async def settled() -> None:
    """Until what was submitted to the background loop before is done."""
    await asyncio.wrap_future(background().submit(asyncio.sleep(0)))
