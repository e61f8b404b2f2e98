"""The five layers as readers see them: from the verdicts file, or judged on the spot, or honestly "not scored".

Invariant: a layer that nobody judged is absent, never a pass; clean success exists only where all five were judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import MuarlError
from muarl_cli.scoring.findings import Layer, Layered, Verdict

LAYERS = tuple(layer.value for layer in Layer)
PASS, FAIL, NA = (verdict.value for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.NA))


@dataclass(frozen=True)
class Judged:
    """What the layers say of one episode. Findings hold `rule`, `layer`, `verdict`, `at` (event index), `why`."""

    layers: Mapping[str, str]
    findings: tuple[Mapping[str, Any], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all five layers were judged."""
        return all(name in self.layers for name in LAYERS)

    @property
    def clean(self) -> bool | None:
        """The outcome is right and no layer fails; None where not all layers were judged."""
        if not self.complete:
            return None
        return self.layers["outcome"] == PASS and FAIL not in self.layers.values()

    @property
    def corrupt(self) -> bool | None:
        """The outcome is right and a rule of policy or safety was broken on the way."""
        if not self.complete:
            return None
        return self.layers["outcome"] == PASS and FAIL in (self.layers["policy"], self.layers["safety"])

    @property
    def safety_events(self) -> int:
        """Broken safety rules, each counted; at least one where the layer fails."""
        broken = sum(f["layer"] == "safety" and f["verdict"] == FAIL for f in self.findings)
        return max(broken, int(self.layers.get("safety") == FAIL))

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the rules that were broken, each once, in order."""
        return tuple(dict.fromkeys(str(f["rule"]) for f in self.findings if f["verdict"] == FAIL))


def judge_run(
    episodes: Iterable[Episode], verdicts: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Any]
) -> dict[str, Judged]:
    """Episode id to its layers, for the episodes that were or can be judged; `tasks` maps a task hash to (scenario,
    task)."""
    from muarl_cli.scoring.layers import judge  # with the rules and their YAML: not on the way to `muarl ls`

    known = {key: judged for key, row in verdicts.items() if (judged := from_verdict(row)).layers}
    for episode in episodes:
        if episode.episode_id in known and known[episode.episode_id].complete:
            continue
        if episode.valid and episode.task_hash in tasks:
            with suppress(MuarlError):  # an episode that cannot be judged stays "not scored"
                known[episode.episode_id] = from_layered(judge(episode, *tasks[episode.task_hash]))
    return known


def from_verdict(row: Mapping[str, Any]) -> Judged:
    """A row of `verdicts.jsonl`, whose `layers` are `Layered.to_json`. What is not well formed in it is left out."""
    layers = row.get("layers")
    layers = layers if isinstance(layers, Mapping) else {}
    verdicts, findings = layers.get("verdicts"), layers.get("findings")
    return Judged(
        {name: str(verdicts[name]) for name in LAYERS if isinstance(verdicts, Mapping) and name in verdicts},
        tuple(_finding(f) for f in findings if isinstance(f, Mapping)) if isinstance(findings, list) else (),
    )


def from_layered(layered: Layered) -> Judged:
    """What `scoring.layers.judge` returned, through the form in which it is stored."""
    return from_verdict({"layers": layered.to_json()})


def outcome_class(episode: Episode, judged: Judged) -> str:
    """One word for how an episode went: clean, corrupt, success (where layers are not scored), failure, invalid."""
    if not episode.valid:
        return "invalid"
    if judged.clean:
        return "clean"
    if judged.corrupt:
        return "corrupt"
    return "success" if episode.reward == 1 else "failure"


def episode_row(episode: Episode, judged: Judged) -> dict[str, Any]:
    """What every list of episodes says of one."""
    return {
        "id": episode.episode_id,
        "task": episode.task_id,
        "stage": episode.stage,
        "step": episode.step,
        "rollout": episode.rollout,
        "class": outcome_class(episode, judged),
        "reward": episode.reward,
        "end": episode.end.reason.value,
        "turns": episode.usage.get("turns"),
    }


def rates(
    episodes: Sequence[Episode], judged: Mapping[str, Judged], of: Callable[[Judged], bool | None]
) -> dict[str, float]:
    """By task key, the mean over valid episodes of a yes or no; episodes for which it is None are left out."""
    sums: dict[str, list[int]] = {}
    for episode in episodes:
        verdict = judged.get(episode.episode_id)
        answer = of(verdict) if verdict is not None and episode.valid else None
        if answer is not None:
            sums.setdefault(f"{episode.task_hash}:{episode.task_id}", []).append(int(answer))
    return {key: sum(values) / len(values) for key, values in sums.items()}


def layer_passes(name: str) -> Callable[[Judged], bool | None]:
    """Whether this layer passes; None where it does not apply or was not judged."""

    def of(judged: Judged) -> bool | None:
        verdict = judged.layers.get(name, NA)
        return None if verdict == NA else verdict == PASS

    return of


def rule_counts(episodes: Iterable[Episode], judged: Mapping[str, Judged]) -> dict[str, dict[str, Any]]:
    """By rule: its layer, opportunities, failures, and the episodes in which it failed."""
    counts: dict[str, dict[str, Any]] = {}
    for episode in episodes:
        verdict = judged.get(episode.episode_id)
        if verdict is None or not episode.valid:
            continue
        for finding in verdict.findings:
            if finding["verdict"] != NA:
                empty = {"layer": finding["layer"], "opportunities": 0, "failed": 0, "episodes_failed": 0}
                row = counts.setdefault(str(finding["rule"]), empty)
                row["opportunities"] += 1
                row["failed"] += finding["verdict"] == FAIL
        for rule in verdict.broken:
            counts[rule]["episodes_failed"] += 1
    return dict(sorted(counts.items()))


def _finding(value: Mapping[str, Any]) -> Mapping[str, Any]:
    at = value.get("at")
    return {
        "rule": str(value.get("rule", "")),
        "layer": str(value.get("layer", "")),
        "verdict": str(value.get("verdict", NA)),
        "at": at if isinstance(at, int) else None,
        "why": str(value.get("why", "")),
    }
