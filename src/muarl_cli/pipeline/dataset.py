"""Conversations from elsewhere as a run folder, and a run's conversations as rows for other trainers.

Import makes an ordinary episode log beside the scenarios that the rows describe (policy and tools), so that `muarl sft`
reads it like any other, and gives each row the verdict of the filters that need no executable tools. Invariant: each
row becomes an episode or a line in `refused_rows.jsonl` with its reason; nothing is dropped silently.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import SCHEMA, End, Episode, StateHashes
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind
from muarl_cli.conversation.tools import parse_arguments
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.records.chat_rows import STOP, ChatRow, openai_row, read_row, sharegpt_row
from muarl_cli.records.files import replace_file
from muarl_cli.records.lineage import Lineage, TaskMark, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash, iter_episodes, parse_where
from muarl_cli.records.verdicts import write_verdicts
from muarl_cli.verification.filters import chain
from muarl_cli.verification.subject import Filter, Subject
from muarl_cli.verification.verify import verify
from muarl_cli.worlds.catalog import scenario_of
from muarl_cli.worlds.described import Described, described, guessed_class

STAGE = "import"
REFUSED, SCENARIOS = "refused_rows.jsonl", "scenarios"
CHECKS = (Filter.ENDED, Filter.ANSWERED, Filter.VALUES, Filter.LANGUAGE, Filter.FORM, Filter.LENGTH)
"""the filters that need neither a task nor tools that can be executed"""
FORMATS = {"openai": openai_row, "sharegpt": sharegpt_row}
_BATCH = 256


def import_dataset(file: Path, out: Path, most_words: int) -> dict[str, Any]:
    """Read a file of rows (JSON lines, a JSON list, parquet) into `out`. Returns counts; raises `MuarlError`."""
    refused: list[dict[str, Any]] = []
    verdicts: dict[str, dict[str, Any]] = {}
    sources: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    marks: set[TaskMark] = set()
    checks = {key: check for key, check in chain("verified", most_words).items() if key in CHECKS}
    scenarios = _Scenarios(out / SCENARIOS)
    run_id = digest([STAGE, file.name, digest(file.read_bytes().hex()[: 1 << 20])])
    batch: list[Episode] = []
    with EpisodeLog.open(out) as log:
        for number, raw in _rows(file):
            try:
                row = read_row(json.loads(raw) if isinstance(raw, str) else raw, number)
            except ValueError as error:
                refused.append({"row": number, "why": str(error), "text": str(raw)[:2000]})
                continue
            scenario = scenarios.of(row)
            episode = _episode(row, scenario, run_id, number)
            verified = verify(Subject(episode, scenario, None), checks)
            verdicts[episode.episode_id] = verified.to_json()
            codes.update({reason.key for reason in verified.reasons})
            sources[row.source or scenario.name] += 1
            ends[episode.end.detail] += 1
            marks.add(TaskMark(episode.task_hash, "", episode.scenario.rpartition(":")[0], scenario.name, "train"))
            batch.append(episode)
            if len(batch) >= _BATCH:
                log.append_many(batch)
                batch.clear()
        log.append_many(batch)
    write_verdicts(out, verdicts)
    own = Lineage.make(stage=STAGE, run_id=run_id, settings_hash="", seeds={}, tasks=marks)
    write_lineage(out, own)
    if refused:
        replace_file(out / REFUSED, "".join(json.dumps(row) + "\n" for row in refused).encode())
    if not verdicts:
        why = refused[0]["why"] if refused else "the file is empty"
        raise MuarlError("no row could be read", where=str(file), why=why, code=ExitCode.BAD_DATA)
    accepted = sum(row["accepted"] for row in verdicts.values())
    return {
        "rows": len(verdicts) + len(refused),
        "imported": len(verdicts),
        "refused": len(refused),
        "accepted": accepted,
        "sources": dict(sorted(sources.items())),
        "scenarios": scenarios.count,
        "ends": dict(sorted(ends.items())),
        "refused_for": dict(sorted(codes.items(), key=lambda item: (-item[1], item[0]))),
        "artifact": artifact_hash(out),
        "out": str(out),
    }


def export_chat(log: Path, file: Path, form: str, where: str) -> dict[str, Any]:
    """Write the conversations of a log that `where` chooses as rows, one JSON object a line. Returns counts; raises
    `MuarlError` where none is chosen."""
    lines = []
    chosen = parse_where(where) if where else None
    for episode in iter_episodes(log, chosen):
        if not episode.valid:
            continue
        scenario = scenario_of(*episode.scenario.rsplit(":", 1))
        lines.append(json.dumps(FORMATS[form](chat_row(episode, scenario)), ensure_ascii=True))
    if not lines:
        raise MuarlError(
            f"no conversation passes where={where!r}",
            where=str(log),
            next_step="loosen --where; an empty one takes all valid ones",
            code=ExitCode.BAD_DATA,
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MuarlError(f"cannot write {file}", why=error.strerror or str(error), code=ExitCode.USAGE) from None
    replace_file(file, ("\n".join(lines) + "\n").encode("ascii"))
    return {"rows": len(lines), "format": form, "file": str(file)}


def chat_row(episode: Episode, scenario: Any) -> ChatRow:
    """An episode as one conversation in OpenAI's form."""
    messages: list[dict[str, Any]] = []
    for event in episode.events:
        call = event.call
        if event.kind is Kind.SAY and event.actor in (Actor.AGENT, Actor.USER):
            messages.append({"role": "user" if event.actor is Actor.USER else "assistant", "content": event.text})
        elif event.kind is Kind.CALL and event.actor is Actor.AGENT and call is not None:
            given = event.text if call.arguments is None else json.dumps(dict(call.arguments))
            asked = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": given}}
            if "same_turn" in event.tags and (turn := _open_turn(messages)) is not None:
                turn["tool_calls"].append(asked)
            elif _beside(episode, event):
                messages[-1]["tool_calls"] = [asked]
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [asked]})
        elif event.actor is Actor.WORLD and call is not None:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": event.text})
    while messages and messages[-1]["role"] == "user" and not messages[-1]["content"]:
        messages.pop()
    tools = tuple(tool.openai()["function"] for tool in scenario.tools)
    return ChatRow(episode.episode_id, episode.scenario, scenario.policy, tuple(messages), tools)


def _beside(episode: Episode, event: Event) -> bool:
    return event.i > 0 and "beside_calls" in episode.events[event.i - 1].tags


def _open_turn(messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The agent's last turn, where it has calls and nothing but answers behind it."""
    for message in reversed(messages):
        if message["role"] == "tool":
            continue
        return message if "tool_calls" in message else None
    return None


class _Scenarios:
    """The scenarios that the rows describe, one file for each pair of policy and tools."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}

    @property
    def count(self) -> int:
        return len(self._names)

    def of(self, row: ChatRow) -> Described:
        key = digest([row.source, row.system, [dict(tool) for tool in row.tools]])
        if key not in self._names:
            base = re.sub(r"\W+", "_", row.source).strip("_")[:60] or "rows"
            taken = set(self._names.values())
            name = next(n for i in range(len(taken) + 1) if (n := base if not i else f"{base}_{i + 1}") not in taken)
            self._names[key] = name
            tools = [{**tool, "class": guessed_class(str(tool["name"])).value} for tool in row.tools]
            page = {"name": name, "policy": row.system, "tools": tools}
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / f"{name}.json", (json.dumps(page, indent=1) + "\n").encode())
            described.cache_clear()
        return described(str(self._folder / f"{self._names[key]}.json"))


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """(number, row or its text) of a file."""
    if file.suffix == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ModuleNotFoundError as error:
            raise MuarlError(
                "reading parquet needs the package pyarrow",
                next_step="pip install pyarrow, or give the rows as JSON lines",
                code=ExitCode.MISSING_INPUT,
            ) from error
        yield from enumerate(parquet.read_table(file).to_pylist(), 1)
        return
    text = file.read_text("utf-8")
    if text.lstrip().startswith("["):
        yield from enumerate(json.loads(text), 1)
        return
    yield from ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _episode(row: ChatRow, scenario: Described, run_id: str, number: int) -> Episode:
    events, stopped = _events(row, scenario)
    key = digest([run_id, row.id, number], 24)
    detail = "stop token" if stopped else "the row ends here"
    turns = sum(event.kind in (Kind.SAY, Kind.CALL) and event.actor is not Actor.WORLD for event in events)
    return Episode(
        schema=SCHEMA,
        episode_id=key,
        run_id=run_id,
        stage=STAGE,
        step=0,
        group_id=digest([run_id, key]),
        rollout=0,
        attempt=0,
        scenario=f"{scenario.source}:{scenario.name}",
        task_id=row.id[:120],
        task_hash=digest([row.source, row.system, [dict(m) for m in row.messages if m["role"] == "user"]]),
        split="train",
        policy_hash=scenario.policy_hash,
        seed=0,
        agent={"kind": "imported", "model": row.source, "revision": "", "weight_version": ""},
        user={"backend": "imported", "model": "", "prompt_hash": "", "persona": "", "seed": 0, "injectors_fired": []},
        events=events,
        end=End(EndReason.USER_STOP if stopped else EndReason.AGENT_STOP, detail),
        valid=True,
        reward=None,
        state=StateHashes(),
        usage={
            "agent_tokens": 0,
            "user_tokens": 0,
            "prompt_tokens": 0,
            "turns": turns,
            "tool_calls": sum(e.kind is Kind.CALL for e in events),
        },
    )


def _events(row: ChatRow, scenario: Described) -> tuple[tuple[Event, ...], bool]:
    """The events of a row, and whether its user said the stop token."""
    classes = {tool.name: tool.klass for tool in scenario.tools}
    found: list[Event] = []
    named: dict[str, Mapping[str, Any]] = {}
    stopped = opened = False

    def add(actor: Actor, kind: Kind, text: str, call: CallRecord | None = None, *tags: str) -> None:
        found.append(Event(len(found), actor, kind, text, call, tags))

    for message in row.messages:
        text = str(message["content"])
        if message["role"] == "user":
            stopped = stopped or STOP in text
            opened = True
            add(Actor.USER, Kind.SAY, text.replace(STOP, "").strip())
        elif message["role"] == "assistant":
            calls = message.get("tool_calls", ())
            if text or not calls:
                add(
                    Actor.AGENT,
                    Kind.SAY,
                    text,
                    None,
                    *(("beside_calls",) if calls else () if opened else ("greeting",)),
                )
            for place, call in enumerate(calls):
                name, given = call["function"]["name"], call["function"]["arguments"]
                arguments, problem = parse_arguments(given)
                named[call["id"]] = {"name": name, "klass": classes.get(name)}
                record = CallRecord(call["id"], name, None if problem else arguments, classes.get(name))
                add(Actor.AGENT, Kind.CALL, given if problem else "", record, *(("same_turn",) if place else ()))
        else:
            known = named.get(message["tool_call_id"], {"name": "", "klass": None})
            failed = text.lstrip().lower().startswith("error")
            record = CallRecord(message["tool_call_id"], known["name"], None, known["klass"], not failed)
            add(Actor.WORLD, Kind.ERROR if failed else Kind.RESULT, text, record)
    reason = EndReason.USER_STOP if stopped else EndReason.AGENT_STOP
    add(Actor.RUNNER, Kind.END, reason.value)
    return tuple(_answers_behind_their_calls(found)), stopped


def _answers_behind_their_calls(events: list[Event]) -> list[Event]:
    """Calls of one turn are written one behind the other in rows, and each before its answer in a log."""
    answers = {e.call.id: e for e in events if e.actor is Actor.WORLD and e.call}
    placed: set[str] = set()
    ordered: list[Event] = []
    for event in events:
        if event.actor is Actor.WORLD and event.call and event.call.id in placed:
            continue
        ordered.append(event)
        if event.kind is Kind.CALL and event.call and event.call.id in answers:
            ordered.append(answers[event.call.id])
            placed.add(event.call.id)
    return [replace(event, i=i) for i, event in enumerate(ordered)]
