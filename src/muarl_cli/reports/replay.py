"""What each write changed: the writes of an episode replayed on a fresh world of its task.

Invariant: a replay is shown only where it ends in the fingerprint that the log has; else nothing is shown, since a
difference that may be wrong is worse than none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Kind, ToolClass
from muarl_cli.conversation.tools import ToolCall

Records = dict[tuple[str, str], tuple[Any, Any]]
"""(table, id) to the record before the episode and now, for what differs"""
Change = list[str]
"""field, before, after, as text"""
MOST_FIELDS, LONGEST = 24, 160
_NO_CHANGE = (ToolClass.READ, ToolClass.GENERIC)
"""classes that leave the state alone, and so need no replay"""


def state_diffs(episodes: Iterable[Episode], tasks: Mapping[str, Any]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """By episode id and event index (of the answer to the call): the records a call changed, `{table, id, changes}`.

    `tasks` maps a task hash to (scenario, task). Episodes whose replay does not agree with the log are left out.
    """

    async def all_of_them() -> dict[str, dict[int, list[dict[str, Any]]]]:
        found = {}
        for episode in episodes:
            if episode.task_hash in tasks and any(e.call and e.call.writes for e in episode.events):
                diffs = await _replay(episode, *tasks[episode.task_hash])
                if diffs:
                    found[episode.episode_id] = diffs
        return found

    return asyncio.run(all_of_them())


async def _replay(episode: Episode, scenario: Any, task: Any) -> dict[int, list[dict[str, Any]]]:
    try:
        world = scenario.world(task)
    except Exception:  # a source that is half installed: no diff, and no failure of the report
        return {}
    diffs: dict[int, list[dict[str, Any]]] = {}
    pending: list[tuple[str, Mapping[str, Any] | None, str]] = []
    before: Records = {}
    try:
        for event in episode.events:
            if event.call is None:
                continue
            if event.kind is Kind.CALL:
                pending.append((event.call.name, event.call.arguments, event.actor.value))
            elif event.actor is Actor.WORLD and pending:
                name, arguments, requestor = _taken(pending, event.call.name)
                if event.kind is not Kind.RESULT or arguments is None or event.call.klass in _NO_CHANGE:
                    continue
                await world.call(ToolCall(event.call.id, name, dict(arguments)), requestor)
                if event.call.writes:
                    after = _records(world)
                    diffs[event.i] = _changes(before, after)
                    before = after
        same = not episode.state.final or world.fingerprint() == episode.state.final
    except Exception:  # whatever a foreign tool raises: this episode has no diff
        return {}
    finally:
        world.close()
    return diffs if same else {}


def _taken(pending: list[tuple[str, Mapping[str, Any] | None, str]], name: str) -> tuple[str, Any, str]:
    """The oldest open call of this name; the oldest of all where none has it."""
    at = next((i for i, call in enumerate(pending) if call[0] == name), 0)
    return pending.pop(at)


def _records(world: Any) -> Records:
    rows = world.diff() if hasattr(world, "diff") else world.store.diff()
    return {(str(row["table"]), str(row["id"])): (row["before"], row["after"]) for row in rows}


def _changes(old: Records, new: Records) -> list[dict[str, Any]]:
    found = []
    for key in sorted({*old, *new}):
        was = old[key][1] if key in old else new[key][0]
        now = new[key][1] if key in new else old[key][0]
        fields = _fields(was, now)
        if fields:
            found.append({"table": key[0], "id": key[1], "changes": fields[:MOST_FIELDS]})
    return found


def _fields(was: Any, now: Any) -> list[Change]:
    left, right = _flat(was), _flat(now)
    return [
        [name, left.get(name, ""), right.get(name, "")]
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    ]


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Leaves by dotted path, as short texts; an absent record has none."""
    if value is None and not path:
        return {}
    if isinstance(value, Mapping) and value:
        return {key: text for name, item in value.items() for key, text in _flat(item, _join(path, str(name))).items()}
    if isinstance(value, list) and value and any(isinstance(item, (Mapping, list)) for item in value):
        return {key: text for i, item in enumerate(value) for key, text in _flat(item, _join(path, str(i))).items()}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {path or "value": text if len(text) <= LONGEST else f"{text[:LONGEST]}…"}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
