"""Official trajectories of TAU1 and TAU2 as episodes, so that everything that reads our logs reads theirs.

TAU1 stores a list of `{task_id, trial, reward, info, traj}`, TAU2 a `results.json` of `{info, tasks, simulations}` (or
that file beside a folder `simulations/`). Both become events, the recorded reward, and the tasks as the file tells
them. Invariant: nothing is played or graded again, so every published figure follows from the imported log; what a
file does not tell (fingerprints of states, tokens) stays empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.benchmarks.trajectory_events import WRITES, class_of, events_of
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import SCHEMA, End, Episode, Key, StateHashes
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.records.lineage import Lineage, TaskMark, write_lineage
from muarl_cli.records.log import EpisodeLog
from muarl_cli.worlds.scenario import GoldCall, Task
from muarl_cli.worlds.task_file import write_tasks

STAGE = "eval"
"""what an official run is in our words: scores and reports treat it as an evaluation"""
_TAU2_ENDS: Mapping[str, EndReason] = {
    "user_stop": EndReason.USER_STOP,
    "agent_stop": EndReason.AGENT_STOP,
    "max_steps": EndReason.LIMIT_AGENT,
    "too_many_errors": EndReason.LIMIT_AGENT,
    "agent_error": EndReason.LIMIT_AGENT,
    "context_window_exceeded": EndReason.LIMIT_AGENT,
    "timeout": EndReason.LIMIT_BUDGET,
    "user_error": EndReason.USER_FAULT,
    "infrastructure_error": EndReason.INFRA_FAULT,
    "unexpected_error": EndReason.INFRA_FAULT,
}
_TOKENS: Mapping[str, EndReason] = {
    "###STOP###": EndReason.USER_STOP,
    "###TRANSFER###": EndReason.TRANSFER,
    "###OUT-OF-SCOPE###": EndReason.OUT_OF_SCOPE,
}
"""what the user says to end a conversation; taken out of the words"""


@dataclass(frozen=True)
class Imported:
    """What a file of trajectories held."""

    source: str
    domain: str
    tasks: tuple[Task, ...]
    episodes: tuple[Episode, ...]


def import_trajectories(path: Path, out: Path, domain: str = "") -> dict[str, Any]:
    """Write the trajectories of `path` as the log of folder `out`, with tasks and lineage beside it.

    `domain` is needed where the file does not tell (TAU1, and no tool of a known desk was called). The same file twice
    adds nothing. Raises `MuarlError` (MISSING_INPUT, BAD_DATA) naming the file and the place in it.
    """
    found = read_trajectories(path, domain)
    with EpisodeLog.open(out) as log:
        added = log.append_many(found.episodes)
    write_tasks(out, found.tasks)
    marks = [TaskMark.of(task) for task in found.tasks]
    run_id = found.episodes[0].run_id
    write_lineage(out, Lineage.make(stage=STAGE, run_id=run_id, settings_hash=run_id, seeds={}, tasks=marks))
    valid = sum(episode.valid for episode in found.episodes)
    return {
        "scenario": f"{found.source}:{found.domain}",
        "tasks": len(found.tasks),
        "episodes": len(found.episodes),
        "valid": valid,
        "added": added,
        "out": str(out),
    }


def read_trajectories(path: Path, domain: str = "") -> Imported:
    """The trajectories of a file (or of a TAU2 folder); see `import_trajectories`."""
    file = path / "results.json" if path.is_dir() else path
    data = _json(file)
    if isinstance(data, list):
        read: Callable[[Any, str, str], Imported] = _tau1
    elif isinstance(data, dict) and {"info", "tasks"} <= data.keys():
        read = _tau2
        folder = file.parent / "simulations"
        if folder.is_dir() and not data.get("simulations"):
            data["simulations"] = [_json(each) for each in sorted(folder.glob("*.json"))]
    else:
        raise _bad(file, "it is neither a list of TAU1 trajectories nor TAU2 results", "")
    try:
        found = read(data, domain, file.stem)
    except MuarlError as error:
        error.where = error.where or str(file)
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _bad(file, f"{type(error).__name__}: {error}", "") from error
    if not found.episodes:
        raise _bad(file, "it holds no trajectory", "")
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise MuarlError(
            "there are no trajectories", where=str(file), why=str(error), code=ExitCode.MISSING_INPUT
        ) from error
    except ValueError as error:
        raise _bad(file, str(error), "") from error


# -- TAU1 ------------------------------------------------------------------------------------------------------------


def _tau1(data: list[Any], domain: str, model: str) -> Imported:
    named = domain or _domain_of(
        [*_gold_names(data), *(call["function"]["name"] for row in data for call in _calls_of(row["traj"]))]
    )
    run_id = digest(["tau1", named, [[row["task_id"], row["trial"], row["traj"]] for row in data]])
    tasks: dict[str, Task] = {}
    episodes = []
    for row in data:
        task = _tau1_task(row, named)
        tasks.setdefault(task.id, task)
        events, token = events_of(row["traj"], named, "tau1", _TOKENS)
        reason = _tau1_end(events, token)
        reward = float(row["reward"])
        gold = (row["info"].get("reward_info") or {}).get("info", {}).get("gt_data_hash") or digest(["gold", task.id])
        episodes.append(
            _episode(run_id, task, row["trial"], 0, events, End(reason), reward, gold, {"model": model}, {})
        )
    return Imported("tau1", named, tuple(tasks.values()), tuple(episodes))


def _tau1_task(row: Mapping[str, Any], domain: str) -> Task:
    told = row["info"]["task"]
    gold = tuple(GoldCall(a["name"], a["kwargs"]) for a in told["actions"] if a["name"] != "respond")
    return _task("tau1", domain, "test", row["task_id"], {"instruction": told["instruction"]}, gold, told["outputs"])


def _tau1_end(events: tuple[Event, ...], token: EndReason | None) -> EndReason:
    """By the user's token, or the terminal tool; a conversation that just stops ran out of steps."""
    if token is not None:
        return token
    calls = [event for event in events if event.kind is Kind.CALL and event.call]
    handed = bool(calls) and calls[-1].call is not None and calls[-1].call.klass is ToolClass.TERMINAL
    return EndReason.TRANSFER if handed else EndReason.LIMIT_AGENT


def _gold_names(data: Iterable[Any]) -> list[str]:
    return [action["name"] for row in data for action in row["info"]["task"]["actions"]]


def _calls_of(messages: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [call for message in messages for call in message.get("tool_calls") or ()]


def _domain_of(names: Iterable[str]) -> str:
    """The desk whose writes these are."""
    seen = list(names)
    counts = {domain: sum(name in writes for name in seen) for domain, writes in WRITES.items()}
    best = max(counts, key=lambda domain: counts[domain])
    if not counts[best]:
        raise MuarlError(
            "the trajectories do not tell their domain",
            why="no tool that writes was called",
            next_step=f"name it with --domain, one of {', '.join(WRITES)}",
            code=ExitCode.USAGE,
        )
    return best


# -- TAU2 ------------------------------------------------------------------------------------------------------------


def _tau2(data: Mapping[str, Any], domain: str, model: str) -> Imported:
    info = data["info"]
    named = domain or str(info["environment_info"]["domain_name"])
    tasks = {str(record["id"]): _tau2_task(record, named) for record in data["tasks"]}
    run_id = digest(["tau2", named, [[s["task_id"], s.get("trial"), s["messages"]] for s in data["simulations"]]])
    agent = {"model": (info.get("agent_info") or {}).get("llm") or model}
    user = {"model": (info.get("user_info") or {}).get("llm") or ""}
    episodes = []
    for row in data["simulations"]:
        task = tasks[str(row["task_id"])]
        ended = str(row["termination_reason"])
        if ended not in _TAU2_ENDS:
            raise _bad(Path(), f"simulation {row['id']}: unknown termination reason {ended!r}", "")
        events, token = events_of(row["messages"] or (), named, "tau2", _TOKENS)
        reason = _TAU2_ENDS[ended]
        if reason is EndReason.USER_STOP and token is not None:
            reason = token
        official = row.get("reward_info")
        if reason.graded and official is None:
            raise _bad(Path(), f"simulation {row['id']} was never scored", "score it with `tau2 evaluate-trajs` first")
        reward = float(official["reward"]) if official else 0.0
        gold = digest(["gold", task.id])
        trial = int(row.get("trial") or 0)
        seed = int(row.get("seed") or 0)
        episodes.append(_episode(run_id, task, trial, seed, events, End(reason, ended), reward, gold, agent, user))
    return Imported("tau2", named, tuple(tasks.values()), tuple(episodes))


def _tau2_task(record: Mapping[str, Any], domain: str) -> Task:
    criteria = record.get("evaluation_criteria") or {}
    gold = tuple(
        GoldCall(a["name"], a["arguments"], "user" if a.get("requestor") == "user" else "agent")
        for a in criteria.get("actions") or ()
    )
    told = (record.get("user_scenario") or {}).get("instructions")
    brief = dict(told) if isinstance(told, Mapping) else {"task_instructions": told}
    return _task("tau2", domain, "base", record["id"], brief, gold, criteria.get("communicate_info") or ())


# -- both ------------------------------------------------------------------------------------------------------------


def _task(
    source: str, domain: str, split: str, task_id: Any, brief: Mapping[str, Any], gold: tuple[GoldCall, ...], said: Any
) -> Task:
    writes = tuple(call for call in gold if class_of(source, domain, call.name) is ToolClass.WRITE)
    family = "+".join(sorted({call.name for call in writes})) or "no_write"
    told = tuple(str(text) for text in said)
    return Task(str(task_id), source, domain, split, family, brief, {}, gold, writes, told)


def _episode(
    run_id: str,
    task: Task,
    trial: int,
    seed: int,
    events: tuple[Event, ...],
    end: End,
    reward: float,
    gold: str,
    agent: Mapping[str, str],
    user: Mapping[str, str],
) -> Episode:
    """One trajectory; its end state is known only where it was the gold one."""
    scenario = f"{task.source}:{task.scenario}"
    key = Key(run_id, STAGE, 0, scenario, task.id, task.task_hash, task.split, int(trial), seed)
    closing = Event(len(events), Actor.RUNNER, Kind.END, end.reason.value)
    said = [event for event in events if event.kind is Kind.SAY]
    calls = sum(event.kind is Kind.CALL for event in events)
    return Episode(
        schema=SCHEMA,
        **key.identity,
        policy_hash="",
        agent={"kind": "official", "revision": "", "weight_version": "", **agent},
        user={"backend": "llm", "prompt_hash": "", "persona": "", "injectors_fired": [], **user},
        events=(*events, closing),
        end=end,
        valid=end.reason.valid,
        reward=reward if end.reason.valid else None,
        state=StateHashes("", gold if reward >= 1.0 else "", gold),
        usage={"turns": sum(event.actor is Actor.USER for event in said) + calls, "tool_calls": calls},
    )


def _bad(file: Path, why: str, next_step: str) -> MuarlError:
    return MuarlError(
        "the trajectories cannot be read",
        where=str(file) if file.name else "",
        why=why,
        next_step=next_step or "name a TAU1 list of trajectories, or TAU2's results.json",
        code=ExitCode.BAD_DATA,
    )
