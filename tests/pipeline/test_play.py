"""Jobs to episodes: same work, same id; nothing is played twice; a fault is never a reward."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.protocols import UserFault
from muarl_cli.errors import MuarlError
from muarl_cli.pipeline.parties import Agents, Users, scripted_user
from muarl_cli.pipeline.play import Job, Player, job
from muarl_cli.pipeline.rollout import take
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.groups import User
from muarl_cli.settings.resolve import resolve
from muarl_cli.worlds.catalog import load_tasks, scenario_of

LIMITS = Limits(30, 0, 3, 10, 60.0)
SCRIPTED: User = resolve(Stage.ROLLOUT, overrides=["user.backend=scripted"], environ={}).settings.user  # type: ignore[attr-defined]


def _jobs(count: int, rollouts: int = 1) -> list[Job]:
    tasks = take(load_tasks(["builtin:retail:dev", "builtin:library:dev"]), count)
    return [job("run", "rollout", 0, s, t, rollout, 1) for s, t in tasks for rollout in range(rollouts)]


def _users(folder: Path) -> Users:
    return Users(SCRIPTED, {}, 0.0, folder)


def _play(folder: Path, jobs: Sequence[Job], in_flight: int = 8, agent: str = "careful=0.5,hasty=0.5") -> list[Any]:
    with EpisodeLog.open(folder) as log:
        return asyncio.run(Player(Agents(agent), _users(folder), LIMITS, in_flight, log).run(jobs))


def test_the_same_work_has_the_same_id_and_every_rollout_has_a_seed_of_its_own() -> None:
    first, again = _jobs(6, 3), _jobs(6, 3)
    assert [j.key for j in first] == [j.key for j in again]
    assert len({j.key.episode_id for j in first}) == len({j.key.seed for j in first}) == 18
    assert len({j.key.group_id for j in first}) == 6


def test_neither_the_number_in_flight_nor_an_interruption_changes_the_artifact(tmp_path: Path) -> None:
    jobs = _jobs(20)
    for name in ("straight", "narrow", "cut"):
        (tmp_path / name).mkdir()
    _play(tmp_path / "straight", jobs)
    _play(tmp_path / "narrow", jobs, in_flight=1)
    _play(tmp_path / "cut", jobs[:7])
    _play(tmp_path / "cut", jobs)
    hashes = {artifact_hash(tmp_path / name) for name in ("straight", "narrow", "cut")}
    assert len(hashes) == 1


def test_what_is_in_the_log_is_not_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = _jobs(6)
    before = _play(tmp_path, jobs)
    monkeypatch.setattr("muarl_cli.pipeline.play.play", lambda *a: pytest.fail("played again"))
    assert [e.episode_id for e in _play(tmp_path, jobs)] == [e.episode_id for e in before]


class _Hanging:
    """A user who breaks down in the middle of some tasks."""

    def __init__(self, broken: set[str]) -> None:
        self.broken = broken

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "broken", "model": "", "prompt_hash": ""}

    def open(self, stage: Any, task: Any) -> Any:
        session = scripted_user(scenario_of(task.source, task.scenario)).open(stage, task)
        return _Breaks(session) if task.id in self.broken else session


class _Breaks:
    def __init__(self, inner: Any) -> None:
        self.inner, self.turns = inner, 0

    async def respond(self, news: Any) -> Any:
        self.turns += 1
        if self.turns > 1:
            raise UserFault("the line is dead")
        return await self.inner.respond(news)

    def close(self) -> None:
        self.inner.close()


def test_a_user_fault_has_no_reward_and_moves_no_sibling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = _jobs(6)
    broken = {jobs[2].task.id}
    users = _users(tmp_path)
    monkeypatch.setattr(users, "of", lambda scenario, seed: _Hanging(broken))
    with EpisodeLog.open(tmp_path) as log:
        episodes = asyncio.run(Player(Agents("oracle"), users, LIMITS, 8, log).run(jobs))
    assert [e.end.reason is EndReason.USER_FAULT for e in episodes] == [j.task.id in broken for j in jobs]
    assert [e.reward for e in episodes] == [None if j.task.id in broken else 1.0 for j in jobs]
    assert not episodes[2].valid


def test_a_mixture_is_drawn_by_the_rollouts_seed_alone(tmp_path: Path) -> None:
    jobs = _jobs(60)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    forward = {e.episode_id: e.agent["model"] for e in _play(tmp_path / "a", jobs)}
    backward = {e.episode_id: e.agent["model"] for e in _play(tmp_path / "b", jobs[::-1])}
    assert forward == backward and set(forward.values()) == {"careful", "hasty"}


def test_a_subset_of_tasks_is_spread_over_all_sets() -> None:
    tasks = load_tasks(["builtin:retail:dev", "builtin:library:dev"])
    for most in (2, 7, 32):
        kept = take(tasks, most)
        assert len(kept) == most and {t.scenario for _, t in kept} == {"retail", "library"}
        assert len({t.task_hash for _, t in kept}) == most
    assert take(tasks, 0) == take(tasks, 10_000) == tasks


def test_who_cannot_play_is_refused_before_the_first_episode(tmp_path: Path) -> None:
    with pytest.raises(MuarlError, match="both take what"):
        Users(SCRIPTED.model_copy(update={"backend": "llm=0.5,replay=0.5"}), {}, 0.0, tmp_path)
    with pytest.raises(MuarlError, match="unknown MCP server"):
        load_tasks(["mcp:sqlite:test"])


class _Redrawn:
    """Gold replay whose engine gets new weights after the first turn, in every second episode."""

    def __init__(self) -> None:
        self.inner, self.opened = GoldReplay(), 0

    @property
    def info(self) -> Mapping[str, Any]:
        return {**self.inner.info, "weight_version": "9"}

    def open(self, stage: Any, task: Any) -> Any:
        session = self.inner.open(stage, task)
        self.opened += 1
        session.weight_versions = ["7", "8", "8"] if self.opened % 2 else ["7", "7"]  # type: ignore[attr-defined]
        return session


def test_an_episode_names_the_weights_of_its_first_turn_and_all_where_they_were_replaced(tmp_path: Path) -> None:
    agents = Agents("policy", fixed=_Redrawn())
    with EpisodeLog.open(tmp_path) as log:
        first, second = asyncio.run(Player(agents, _users(tmp_path), LIMITS, 1, log).run(_jobs(2)))
    assert first.agent["weight_version"] == "7" and first.agent["weight_versions"] == ["7", "8", "8"]
    assert second.agent["weight_version"] == "7" and "weight_versions" not in second.agent


class _SlowDisk(EpisodeLog):
    """A log whose disk takes no more until it is `freed`."""

    freed: threading.Event
    batches: int

    def append_many(self, episodes: Iterable[Any]) -> int:
        self.batches = getattr(self, "batches", 0) + 1
        assert self.freed.wait(20)
        return super().append_many(episodes)


async def _stuck(folder: Path, jobs: Sequence[Job], in_flight: int) -> tuple[_SlowDisk, asyncio.Task[Any], list[int]]:
    """A run whose disk is stuck, after everything has happened that can; and how many conversations began."""
    log = _SlowDisk.open(folder)
    assert isinstance(log, _SlowDisk)
    log.freed = threading.Event()
    users, begun = _users(folder), [0]
    users.remote = True  # conversations end in any order, as with a served user

    def around(_: Job, world: Any) -> Any:
        begun[0] += 1
        return world

    running = asyncio.create_task(Player(Agents("oracle"), users, LIMITS, in_flight, log, around).run(jobs))
    for _ in range(2000):
        await asyncio.sleep(0)
    return log, running, begun


async def test_new_episodes_wait_while_the_disk_is_slower_than_the_conversations(tmp_path: Path) -> None:
    jobs = _jobs(30)
    log, running, begun = await _stuck(tmp_path, jobs, 2)
    assert 2 <= begun[0] <= 7, "a batch that is being written, as many that wait for it, as many that are held"
    log.freed.set()
    episodes = await asyncio.wait_for(running, 30)
    assert begun[0] == 30 and [e.episode_id for e in episodes] == [j.key.episode_id for j in jobs]
    assert log.done_ids() == {j.key.episode_id for j in jobs}
    log.close()


async def test_what_is_finished_when_a_run_is_cancelled_is_on_disk(tmp_path: Path) -> None:
    jobs = _jobs(30)
    log, running, begun = await _stuck(tmp_path, jobs, 2)
    finished = begun[0]  # nobody waits for anything but the disk
    running.cancel()
    threading.Timer(0.2, log.freed.set).start()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 30)
    log.close()
    with EpisodeLog.open(tmp_path) as again:
        assert len(again.done_ids()) == finished
        await Player(Agents("oracle"), _users(tmp_path), LIMITS, 2, again).run(jobs)
        assert len(again.done_ids()) == 30
