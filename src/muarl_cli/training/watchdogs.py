"""Watchdogs: rules over the metrics of the steps so far that say when a run goes wrong, before its score does.

A rule is a pure function of the history and its bound; it compares the last `window` steps with a fixed bound or, where
only the run itself tells what is normal, with its first `window` steps. What follows is a setting of each: `warn` says
it once, when it begins; `pause` ends the process with a checkpoint, and the same command goes on; `stop` ends it for
good until the setting is changed. Invariants: the same history gives the same alarms (a resumed run sees what the
straight one saw); a figure that is missing raises none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError

History = Sequence[Mapping[str, Any]]
"""rows of metrics.jsonl, oldest first"""


class Reaction(StrEnum):
    """What an alarm does; the later ones win over the earlier."""

    WARN = "warn"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Alarm:
    name: str
    reaction: Reaction
    why: str


@dataclass(frozen=True)
class _Rule:
    metric: str
    fires: Callable[[float, float, float], bool]
    """(now, at the beginning, bound)"""
    says: str
    relative: bool = True
    """whether it needs the run's beginning"""


def _above(now: float, begun: float, bound: float) -> bool:
    return now > bound


def _rises(now: float, begun: float, bound: float) -> bool:
    return now > begun + bound


def _shrinks(now: float, begun: float, bound: float) -> bool:
    return now < begun * bound


def _leaves(now: float, begun: float, bound: float) -> bool:
    return now * bound < begun or now > begun * bound


RULES: Mapping[str, _Rule] = {
    "entropy": _Rule("entropy", _leaves, "entropy {now:.3g}, {begun:.3g} at the beginning"),
    "reward_spread": _Rule("reward_spread", _shrinks, "rewards within groups spread {now:.3g}, {begun:.3g} before"),
    "loops": _Rule("loop_share", _above, "{now:.1%} of the episodes end in a loop", relative=False),
    "faults": _Rule("fault_share", _above, "{now:.1%} of the conversations end in a fault", relative=False),
    "do_nothing": _Rule("idle_success_share", _rises, "{now:.1%} are rewarded without a write, {begun:.1%} before"),
    "writes": _Rule("writes_per_episode", _shrinks, "{now:.2f} writes an episode, {begun:.2f} before"),
    "transfers": _Rule("transfer_share", _rises, "{now:.1%} are handed over, {begun:.1%} before"),
    "corrupt": _Rule(
        "corrupt_success_share", _rises, "{now:.1%} are rewarded though a rule was broken, {begun:.1%} before"
    ),
    "mismatch": _Rule("mismatch_k3", _above, "engine and trainer differ by a KL of {now:.2g}", relative=False),
}
"""all but `nan`, which counts steps and compares nothing"""


def alarms(history: History, reactions: Mapping[str, str], bounds: Mapping[str, float], window: int) -> list[Alarm]:
    """What is wrong after the last step of `history`, in the order of `reactions`.

    `reactions` and `bounds` have an entry a watchdog: "nan" and the names of `RULES`.
    """
    found = []
    for name, reaction in reactions.items():
        why = _nan(history, bounds[name]) if name == "nan" else _compared(RULES[name], history, bounds[name], window)
        if why:
            found.append(Alarm(name, Reaction(reaction), why))
    return found


def begun(history: History, reactions: Mapping[str, str], bounds: Mapping[str, float], window: int) -> list[Alarm]:
    """The alarms that the last step raised and the step before did not."""
    before = {alarm.name for alarm in alarms(history[:-1], reactions, bounds, window)}
    return [alarm for alarm in alarms(history, reactions, bounds, window) if alarm.name not in before]


def end_of_run(alarm: Alarm, where: str) -> MuarlError:
    """The error that ends a run; its checkpoint is written before it is raised."""
    pause = alarm.reaction is Reaction.PAUSE
    on = f"watchdogs.{alarm.name}=warn"
    return MuarlError(
        f"the watchdog {alarm.name} {'paused' if pause else 'stopped'} this run",
        where=where,
        why=alarm.why,
        next_step=f"look at it with muarl report; the same command goes on{'' if pause else f' with {on}'}"
        f"{f' ({on}: without pausing again)' if pause else ''}",
        code=ExitCode.TEMPORARY if pause else ExitCode.GATE_FAILED,
    )


def _nan(history: History, bound: float) -> str:
    """Steps whose loss or gradient was not finite; the trainer counts those that it did not apply."""
    skipped = int(history[-1].get("skipped") or 0) if history else 0
    return f"{skipped} steps were not finite and not applied" if skipped >= bound else ""


def _compared(rule: _Rule, history: History, bound: float, window: int) -> str:
    seen = [row.get(rule.metric) for row in history]
    known = [float(value) for value in seen if value is not None and math.isfinite(value)]
    if not known or (rule.relative and len(known) < 2 * window):
        return ""
    now, start = _mean(known[-window:]), _mean(known[:window])
    return rule.says.format(now=now, begun=start) if rule.fires(now, start, bound) else ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
