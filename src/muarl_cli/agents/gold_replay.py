"""An agent that plays a task's gold calls: the proof that a world, its end-state check and the loop agree.

It makes one call a turn (calls that fail inside gold are part of gold) and asks the user for those that are the user's;
then it says what must be communicated, then closes. The next move depends only on how many moves were made, so that a
stateless server can play the same part over the wire. Invariant: with nothing dropped it reaches the gold end state;
with the last effective write dropped it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.agents.floors import TRANSFERRED, handover
from muarl_cli.conversation.events import Event, ToolClass
from muarl_cli.conversation.protocols import AgentSession, AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.users.minimal import instruction
from muarl_cli.worlds.scenario import GoldCall, Task

CLOSING = "That is everything from my side. Thank you for contacting us. Goodbye!"
DONE = "That is done."


@dataclass(frozen=True)
class Move:
    """One turn: either a call or words."""

    text: str = ""
    call: GoldCall | None = None
    more: tuple[GoldCall, ...] = ()
    """calls of the same turn, after `call`"""


def plan(task: Task, tools: Sequence[ToolSpec], *, drop_last_write: bool) -> tuple[Move, ...]:
    """The moves for `task`. Handing over ends the conversation, so it comes last, after what must be said; where the
    call itself ends nothing, the words for it follow, on which the user leaves."""
    tool = handover(tools)
    last = tool.name if tool else ""
    skipped = last_write(task) if drop_last_write else -1
    if "gold_turns" in task.extra:
        return _by_turns(task, skipped)
    played = [call for i, call in enumerate(task.gold) if i != skipped]
    moves = [_move(call) for call in played if call.name != last]
    if task.communicate:
        moves.append(Move(text="For your information: " + "; ".join(task.communicate) + ". Is there anything else?"))
    leaving = [Move(call=call) for call in played if call.name == last]
    if leaving and tool and tool.klass is not ToolClass.TERMINAL:
        leaving.append(Move(text=TRANSFERRED))
    return (*moves, *(leaving or [Move(text=str(task.extra.get("closing", CLOSING)))]))


def _move(call: GoldCall) -> Move:
    """A gold call of the agent is made; one of the user is asked for."""
    return Move(call=call) if call.requestor == "agent" else Move(text=instruction(call.name, call.arguments))


def _by_turns(task: Task, skipped: int) -> tuple[Move, ...]:
    """The moves of a task that says how many gold calls answer each user turn. Words close every turn; calls that are
    more than the steps a turn may have (`steps_a_turn`) are made together, in one step."""
    moves: list[Move] = []
    start = 0
    for count in task.extra["gold_turns"]:
        calls = [call for i, call in enumerate(task.gold[start : start + count], start) if i != skipped]
        start += count
        if len(calls) > task.extra["steps_a_turn"]:
            moves.append(Move(call=calls[0], more=tuple(calls[1:])))
        else:
            moves += [Move(call=call) for call in calls]
        moves.append(Move(text=DONE))
    return tuple(moves)


def last_write(task: Task) -> int:
    """The place in `task.gold` of the last call that changes the state, -1 where none does."""
    if not task.gold_writes:
        return -1
    last = task.gold_writes[-1]
    same = [i for i, call in enumerate(task.gold) if call is last] or [i for i, c in enumerate(task.gold) if c == last]
    return same[-1] if same else -1


class _GoldReplay:
    def __init__(self, moves: tuple[Move, ...]) -> None:
        self._moves, self._next = moves, 0

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        move = self._moves[min(self._next, len(self._moves) - 1)]
        self._next += 1
        if move.call is None:
            return AgentTurn(text=move.text)
        calls = (move.call, *move.more)
        ids = [f"call{self._next:05d}" + (f"-{i}" if i else "") for i in range(len(calls))]
        return AgentTurn(calls=tuple(ToolCall(i, c.name, dict(c.arguments)) for i, c in zip(ids, calls, strict=True)))

    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        return None


class GoldReplay:
    """Opens gold-replay sessions; `drop_last_write` leaves out the last call that changes the state."""

    def __init__(self, drop_last_write: bool = False) -> None:
        self.drop_last_write = drop_last_write

    @property
    def info(self) -> Mapping[str, Any]:
        model = "gold-replay-without-last-write" if self.drop_last_write else "gold-replay"
        return {"kind": "scripted", "model": model, "revision": "", "weight_version": 0}

    def open(self, stage: Stage, task: Any) -> AgentSession:
        return _GoldReplay(plan(task, stage.tools, drop_last_write=self.drop_last_write))
