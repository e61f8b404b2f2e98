"""The user of a recorded episode again, turn by turn, from an episode log.

It needs no model, no scenario knowledge and no cassette: only what was said. Invariant: a recorded turn is said only
where the agent's words up to it are those of the recording, to the byte; anything else is a miss, which ends the
episode as a fault of the user and says at which turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import Stage, UserFault, UserSession, UserTurn
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.errors import ExitCode, MuarlError

LOG = "episodes.jsonl"
_ENDS = frozenset({EndReason.USER_STOP, EndReason.TRANSFER, EndReason.OUT_OF_SCOPE})


def is_episode_log(path: Path) -> bool:
    """Whether `path` is a run folder or an episode log (else it may be a cassette)."""
    return path.name == LOG or (path / LOG).is_file()


class ReplayUsers:
    """Opens replays of the episodes in a log. Raises `MuarlError` where there is no such log."""

    def __init__(self, path: Path) -> None:
        from muarl_cli.records.log import iter_episodes

        self._path = path if path.is_dir() else path.parent
        if not (self._path / LOG).is_file():
            raise MuarlError(
                f"there is no episode log at {path}",
                next_step="name a run folder, an episodes.jsonl or a cassette with --user-model PATH",
                code=ExitCode.MISSING_INPUT,
            )
        episodes = list(iter_episodes(self._path, lambda episode: episode.valid))
        self._by_rollout = {(e.task_hash, e.seed): e for e in episodes}
        self._by_task: dict[str, list[Episode]] = {}
        for episode in episodes:
            self._by_task.setdefault(episode.task_hash, []).append(episode)

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "replay", "model": self._path.name, "prompt_hash": "", "persona": ""}

    def open(self, stage: Stage, task: Any) -> UserSession:
        return _Replay(self._recorded(task.task_hash, stage.seed), f"task {task.id}, rollout seed {stage.seed}")

    def _recorded(self, task: str, seed: int) -> Episode | None:
        """The episode of this rollout; with other seeds, the only one of its task."""
        found = self._by_rollout.get((task, seed))
        alone = self._by_task.get(task, [])
        return found or (alone[0] if len(alone) == 1 else None)


class _Replay:
    def __init__(self, episode: Episode | None, name: str) -> None:
        self._turns = _turns(episode) if episode else []
        self._found, self._name = episode is not None, name
        self._at = 0

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        if not self._found:
            raise UserFault(f"replay miss: the log holds no episode of {self._name}, or several with other seeds")
        if self._at >= len(self._turns):
            raise UserFault(f"replay miss: {self._name} has only {len(self._turns)} user turns")
        heard, turn = self._turns[self._at]
        if [e.text for e in news if e.heard_by_user()] != heard:
            raise UserFault(f"replay miss: before user turn {self._at + 1} of {self._name} the agent said otherwise")
        self._at += 1
        return turn

    def close(self) -> None:
        self._turns = []


def _turns(episode: Episode) -> list[tuple[list[str], UserTurn]]:
    """(what the agent said before, what the user did) for each turn of a recorded user."""
    turns: list[tuple[list[str], UserTurn]] = []
    heard: list[str] = []
    for event in episode.events:
        if event.heard_by_user():
            heard.append(event.text)
        elif event.actor is Actor.USER and event.kind is Kind.CALL and event.call is not None:
            call = ToolCall(event.call.id, event.call.name, dict(event.call.arguments or {}))
            turns.append((heard, UserTurn(calls=(call,))))
            heard = []
        elif event.actor is Actor.USER and event.kind is Kind.SAY:
            last = episode.events[event.i + 1 :]
            ends = len(last) == 1 and episode.end.reason in _ENDS
            turns.append((heard, UserTurn(event.text, episode.end.reason if ends else None, tags=event.tags)))
            heard = []
    return turns
