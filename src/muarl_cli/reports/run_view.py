"""A run as its readers see it: everything in the folder that can be read without taking part in the run.

Invariant: reading changes nothing and takes no lock, so a run can be looked at while it is written and after it was
killed; scores are computed from the log with the run's own seed and resamples, and so equal what the stage printed.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records import codec
from muarl_cli.records.ledger import read_spent
from muarl_cli.records.lineage import Lineage, read_lineage
from muarl_cli.records.run import SETTINGS, SUMMARY, read_metrics, read_settings
from muarl_cli.records.scan import LOG_NAME, Damage, iter_lines
from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.reports.layers import Judged, judge_run
from muarl_cli.scoring.summary import ScoreSummary, summarise

RESAMPLES, SEED = 10_000, 1
"""for a log whose run says neither"""
SPEND = "spend.json"
_HEADER = re.compile(r"# muarl ([\w-]+), run ([0-9a-f]+)")
FLOOR_STAGES = {"eval/do-nothing": "do_nothing", "eval/transfer-only": "transfer_only"}


@dataclass(frozen=True)
class Header:
    """What the first line of `settings.yaml` says."""

    stage: str
    run_id: str


def read_header(folder: Path) -> Header | None:
    """Stage and run id of a run folder, without parsing its settings; None where it holds no run."""
    try:
        with (folder / SETTINGS).open(encoding="utf-8") as file:
            found = _HEADER.match(file.readline())
    except (OSError, UnicodeDecodeError):
        return None
    return Header(found.group(1), found.group(2)) if found else None


@dataclass(frozen=True)
class RunView:
    """One run. `name` is how it is called where several stand side by side."""

    name: str
    folder: Path
    stage: str
    run_id: str
    settings: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any] | None
    """None: not finished"""
    lineage: Lineage | None
    spend: tuple[float, float] | None
    """US dollars settled and reserved; None where nothing was paid"""
    episodes: tuple[Episode, ...]
    verdicts: Mapping[str, Mapping[str, Any]]
    tokens: Mapping[str, codec.RowsRef]
    """which token rows belong to an episode"""
    damage: tuple[Damage, ...] = ()
    tasks: Mapping[str, Any] = field(default_factory=dict)
    """task hash to (scenario, task), where the source is installed; filled by `with_tasks`"""

    @property
    def resamples(self) -> int:
        return int(self.settings.get("bootstrap", RESAMPLES))

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", SEED))

    @property
    def overlap_notes(self) -> tuple[str, ...]:
        """What stands beside the score of a run that was allowed to evaluate what its model was trained on."""
        overlap = (self.summary or {}).get("overlap")
        return (f"{self.name} was scored on {len(overlap)} tasks that its model was trained on",) if overlap else ()

    @property
    def agent(self) -> str:
        """How the stage names its own agent in `summary.json`."""
        kind = str(self.settings.get("agent", "policy"))
        return "policy" if kind == "policy" else kind

    @cached_property
    def own(self) -> tuple[Episode, ...]:
        """The episodes of the run itself, without those of the floors."""
        return tuple(e for e in self.episodes if e.stage not in FLOOR_STAGES)

    @cached_property
    def floors(self) -> Mapping[str, tuple[Episode, ...]]:
        """The episodes of the floors that were played beside it, by name."""
        return {
            name: found
            for stage, name in FLOOR_STAGES.items()
            if (found := tuple(e for e in self.episodes if e.stage == stage))
        }

    @cached_property
    def writes(self) -> Mapping[str, bool] | None:
        """Whether solving a task takes a write, by task hash; from the lineage, or from the tasks themselves."""
        hashes = {e.task_hash for e in self.episodes}
        if self.lineage is not None and self.lineage.tasks:
            known = {mark.task_hash: bool(mark.gold_write_hash) for mark in self.lineage.tasks}
        else:
            known = {key: bool(task.writes) for key, (_, task) in self.tasks.items()}
        return known if hashes <= known.keys() else None

    @cached_property
    def families(self) -> Mapping[str, str]:
        """The intent family by task hash; empty unless every task is known here."""
        if not {e.task_hash for e in self.episodes} <= self.tasks.keys():
            return {}
        return {key: task.family for key, (_, task) in self.tasks.items()}

    def score(self, episodes: Iterable[Episode], planned: int | None = None) -> ScoreSummary:
        """Score some of its episodes as the stage would."""
        return summarise(
            episodes,
            resamples=self.resamples,
            seed=self.seed,
            writes=self.writes,
            families=self.families or None,
            planned=planned,
        )

    @cached_property
    def scores(self) -> Mapping[str, ScoreSummary]:
        """By name: the floors that were played beside it, and the run itself under the name of its agent."""
        found = {name: self.score(episodes, self._planned(name)) for name, episodes in self.floors.items()}
        if self.own:
            found[self.agent] = self.score(self.own, self._planned(self.agent))
        return found

    def _planned(self, name: str) -> int | None:
        """How many episodes the stage had planned, where it finished and said so."""
        said: Any = self.summary
        for key in ("full", name, "episodes", "planned"):
            said = said.get(key) if isinstance(said, Mapping) else None
        return said if isinstance(said, int) else None

    @cached_property
    def judged(self) -> Mapping[str, Judged]:
        """The layers of its episodes by episode id, as far as they were or can be judged."""
        return judge_run(self.episodes, self.verdicts, self.tasks)

    @property
    def main(self) -> ScoreSummary:
        """The score of the run itself; raises `MuarlError` where it has no episodes."""
        if not self.own:
            raise MuarlError(
                f"{self.folder} has no episodes to score",
                next_step="name a run of eval, rollout, rl-train or synth-coldstart",
                code=ExitCode.MISSING_INPUT,
            )
        return self.scores[self.agent]


def is_run(path: Path | str) -> bool:
    """Whether a path is a run folder, or its log."""
    folder = Path(path).parent if Path(path).name == LOG_NAME else Path(path)
    return (folder / SETTINGS).exists() or (folder / LOG_NAME).exists()


def load_run(path: Path | str, name: str = "", where: Callable[[Episode], bool] | None = None) -> RunView:
    """Read a run folder, or the folder of an `episodes.jsonl`. Raises `MuarlError` where it is neither."""
    folder = Path(path)
    if folder.name == LOG_NAME:
        folder = folder.parent
    if not is_run(folder):
        raise MuarlError(
            f"{path} is no run",
            why=f"it holds neither {SETTINGS} nor {LOG_NAME}",
            next_step="muarl ls shows the runs below runs/",
            code=ExitCode.MISSING_INPUT,
        )
    header = read_header(folder)
    damage: list[Damage] = []
    episodes: list[Episode] = []
    tokens: dict[str, codec.RowsRef] = {}
    if (folder / LOG_NAME).exists():
        for head, line in iter_lines(folder, damage.append):
            try:
                episode = codec.decode(line)
            except codec.BadLine as bad:
                damage.append(Damage(-1, len(line), bad.why))
                continue
            if where is not None and not where(episode):
                continue
            episodes.append(episode)
            if head.tokens:
                tokens[head.episode_id] = head.tokens
    return RunView(
        name=name or folder.resolve().name,
        folder=folder,
        stage=header.stage if header else (episodes[0].stage if episodes else ""),
        run_id=header.run_id if header else (episodes[0].run_id if episodes else ""),
        settings=read_settings(folder) or {},
        metrics=tuple(read_metrics(folder)),
        summary=_summary(folder),
        lineage=read_lineage(folder),
        spend=read_spent(folder / SPEND),
        episodes=tuple(episodes),
        verdicts=read_verdicts(folder),
        tokens=tokens,
        damage=tuple(damage),
    )


def load_runs(paths: Iterable[Path | str], tasks: bool = True) -> list[RunView]:
    """Several runs, under names that tell them apart."""
    folders = [Path(path) for path in paths]
    names = _names(folders)
    views = [load_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    return [with_tasks(view) for view in views] if tasks else views


def with_tasks(run: RunView) -> RunView:
    """The run with its tasks beside it, as far as their source is installed here and still holds the same ones."""
    from dataclasses import replace

    wanted = {(e.scenario, e.split) for e in run.episodes}
    hashes = {e.task_hash for e in run.episodes}
    book = {}
    for name, split in sorted(wanted):
        for scenario, task in _load(name, split):
            if task.task_hash in hashes:
                book[task.task_hash] = (scenario, task)
    return replace(run, tasks=book)


def find_runs(root: Path, pattern: str = "*") -> list[Path]:
    """Run folders below `root`, sorted; what lies inside a run (checkpoints) is not looked at."""
    found: list[Path] = []
    for folder, below, files in os.walk(root):
        if SETTINGS in files and read_header(Path(folder)):
            found.append(Path(folder))
            below[:] = [name for name in below if name != "checkpoints"]
    return sorted(path for path in found if fnmatch.fnmatch(path.name, pattern))


def _load(name: str, split: str) -> list[tuple[Any, Any]]:
    from muarl_cli.worlds.catalog import load_tasks

    try:
        return list(load_tasks([f"{name}:{split}"]))
    except (MuarlError, ImportError, ValueError, OSError):  # another version, or a source that is not installed here
        return []


def _summary(folder: Path) -> Mapping[str, Any] | None:
    import json

    try:
        value = json.loads((folder / SUMMARY).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _names(folders: list[Path]) -> list[str]:
    """The last part of each path; where two are alike, as many parts as it takes."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in (1, 2, 3):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({i + 1})" for i, name in enumerate(names)]
