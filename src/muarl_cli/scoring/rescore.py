"""Judging a log again: new rules without new rollouts.

Reads episodes, asks the rules of today, and replaces `verdicts.jsonl` (and `layers.json`); the log itself is never
touched. Invariant: the same log and the same rules give the same bytes, and what other judges wrote about an episode
(whether it was accepted, and why) stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical
from muarl_cli.records.files import replace_file
from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts, write_verdicts
from muarl_cli.scoring.behaviour import conduct
from muarl_cli.scoring.findings import Layered
from muarl_cli.scoring.layer_summary import Judged, summarise_layers
from muarl_cli.scoring.layers import book_of, judge_by
from muarl_cli.scoring.rules import Rulebook, shipped_rules
from muarl_cli.worlds.scenario import Task
from muarl_cli.worlds.task_file import read_tasks

LAYERS_NAME = "layers.json"
RESAMPLES = 10_000
SEED = 1


class Judge:
    """Judges episodes of any scenario; scenarios and their tasks are opened once. `beside`: tasks that lie with the log
    (see `worlds.task_file`), for those that no scenario holds."""

    def __init__(self, beside: Mapping[str, Task] | None = None) -> None:
        self._beside = dict(beside or {})
        self._books: dict[str, tuple[Rulebook, Any]] = {}
        self._tasks: dict[tuple[str, str], dict[str, Task]] = {}
        self.without_task = 0
        """episodes whose task is not in its scenario any more: rules that need to know what was wanted were left out"""

    def judge(self, episode: Episode) -> tuple[Layered, Judged]:
        book, scenario = self._book(episode.scenario)
        task = self._task(episode, scenario)
        layered = judge_by(book, episode, task)
        key = f"{episode.task_hash}:{episode.task_id}"
        if not episode.valid:
            return layered, Judged(key, layered)
        self.without_task += task is None
        return layered, Judged(key, layered, *conduct(book, episode, task, layered))

    def _book(self, name: str) -> tuple[Rulebook, Any]:
        """The rules of a scenario; where it cannot be opened here, those that are shipped for it."""
        if name not in self._books:
            source, _, domain = name.rpartition(":")
            scenario = _open(source, domain)
            book = book_of(scenario) if scenario is not None else Rulebook(shipped_rules(source, domain))
            self._books[name] = (book, scenario)
        return self._books[name]

    def _task(self, episode: Episode, scenario: Any) -> Task | None:
        if scenario is None or episode.task_hash in self._beside:
            return self._beside.get(episode.task_hash)
        place = (episode.scenario, episode.split)
        if place not in self._tasks:
            known = scenario.splits()
            tasks = scenario.tasks(episode.split) if episode.split in known else ()
            self._tasks[place] = {task.task_hash: task for task in tasks}
        return self._tasks[place].get(episode.task_hash)


def _open(source: str, domain: str) -> Any:
    from muarl_cli.worlds.catalog import scenario_of

    try:
        return scenario_of(source, domain)
    except (MuarlError, ModuleNotFoundError):  # a benchmark that is not installed here: its log can still be judged
        return None


def rescore(log: Path, *, write: bool = True, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Any]:
    """Judge all counting episodes of a run folder or log file.

    Returns `{"episodes", "without_task", "labels": {stage: layer summary}}`, the stage being what the episodes say
    ("eval", "eval/do-nothing"). With `write`, layers go into the folder's verdicts and the result into `layers.json`.
    Raises `MuarlError` where there is no log, or a valid episode has no reward or gold.
    """
    folder = log if log.is_dir() else log.parent
    judge = Judge(read_tasks(folder))
    judged: dict[str, list[Judged]] = {}
    verdicts: dict[str, dict[str, Any]] = read_verdicts(folder) if write else {}
    for episode in iter_episodes(log):
        layered, row = judge.judge(episode)
        judged.setdefault(episode.stage, []).append(row)
        if write:
            verdicts.setdefault(episode.episode_id, {})["layers"] = layered.to_json()
    if not judged:
        raise MuarlError(
            "the log holds no episode", where=str(log), next_step="name a run folder", code=ExitCode.MISSING_INPUT
        )
    result: dict[str, Any] = {
        "episodes": sum(len(rows) for rows in judged.values()),
        "without_task": judge.without_task,
        "labels": {stage: summarise_layers(judged[stage], resamples=resamples, seed=seed) for stage in sorted(judged)},
    }
    if write:
        write_verdicts(folder, verdicts)
        text = json.dumps(canonical(result), indent=2, sort_keys=True, allow_nan=False) + "\n"
        replace_file(folder / LAYERS_NAME, text.encode("ascii"))
    return result


def by_label(result: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The layer summaries under other names: stage to label; stages that are not named are left out."""
    return {label: result["labels"][stage] for stage, label in names.items() if stage in result["labels"]}
