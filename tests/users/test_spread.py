"""S16: the spread of an agent's score between users is measured on the same tasks and seeds, and on nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from fakes.planted_users import clean

from muarl_cli.cli.app import main
from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import MuarlError
from muarl_cli.records.log import EpisodeLog
from muarl_cli.users.spread import spread_of


@cache
def log() -> tuple[Episode, ...]:
    return tuple(clean(tasks=12, trials=2))


def harder(episodes: Sequence[Episode], lost: int) -> list[Episode]:
    """The same work with a model as user, and `lost` episodes failed."""
    other = [replace(e, user={**e.user, "backend": "llm", "model": "m"}) for e in episodes]
    return [replace(e, reward=0.0) if k < lost else e for k, e in enumerate(other)]


def test_the_spread_is_the_largest_difference_of_means_and_the_interval_is_paired_by_task() -> None:
    found = spread_of({"a": log(), "b": harder(log(), 6), "c": harder(log(), 3)})
    assert found.episodes == 24 and found.tasks == 12
    assert found.spread == pytest.approx(6 / 24)
    difference = found.differences["a", "b"]
    assert difference.mean == pytest.approx(-6 / 24) and difference.low < difference.mean < difference.high <= 0
    assert [side.user for side in found.sides] == ["scripted agenda/1", "llm m", "llm m"]
    assert found.warnings == ("two logs have the same user",)


def test_only_work_that_both_logs_have_is_compared() -> None:
    other = harder(log(), 0)
    moved = [replace(e, seed=e.seed + 1, reward=0.0) for e in other[:4]]
    dead = [replace(e, valid=False, reward=None) for e in other[4:6]]
    found = spread_of({"a": log(), "b": [*moved, *dead, *other[6:]]})
    assert found.episodes == 18 and found.spread == 0
    assert [side.left_out for side in found.sides] == [6, 4] and found.sides[1].invalid == 2
    with pytest.raises(MuarlError, match="no task and seed"):
        spread_of({"a": log(), "b": [replace(e, seed=e.seed + 1) for e in other]})


def test_other_agents_are_warned_of() -> None:
    other = [replace(e, agent={**e.agent, "model": "hasty"}) for e in harder(log(), 0)]
    assert any("agents differ" in line for line in spread_of({"a": log(), "b": other}).warnings)


def test_the_command_compares_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name, episodes in (("a", log()), ("b", harder(log(), 6))):
        with EpisodeLog.open(tmp_path / name) as file:
            file.append_many(episodes)
        paths.append(str(tmp_path / name))
    assert main(["users", "compare", *paths, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spread"] == pytest.approx(0.25)
    assert main(["users", "compare", *paths]) == 0
    assert "spread 25.0 %" in capsys.readouterr().out
    assert main(["users", "compare", paths[0]]) == 64
