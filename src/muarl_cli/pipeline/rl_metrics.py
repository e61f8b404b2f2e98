"""How the policy behaves while it learns: the paper's nine training curves (figure 5), and what the watchdogs look at.

Of the nine, KL, entropy (over the policy's own tokens) and gradient norm come from the update; reward, all-correct,
all-wrong, counted turns and response length from `rl_batches.step_metrics`; the rest is counted here, from the events
of the valid episodes. Invariant: each is a quotient of sums over the step, so the order of episodes changes none.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Kind, ToolClass
from muarl_cli.pipeline.rl_batches import Batch, by_token
from muarl_cli.scoring.metrics import count, pool
from muarl_cli.scoring.rewards import Reward, agent_turns, reward_of

_LOOPS = ("in a row",)
"""how the details of ends by repetition read (`conversation.limits`)"""


def behaviour_metrics(batch: Batch) -> dict[str, Any]:
    """Turns as the policy takes them, words, calls by tool, and four ways to be rewarded or ended for nothing good."""
    found = [(group, e) for group in batch.groups for e in group.episodes]
    valid = [(group, e) for group, e in found if e.valid]
    episodes = [e for _, e in valid]
    each = max(1, len(episodes))
    said = pool(e.events for e in episodes)
    shares = said.to_json()
    solved = [(group, e) for group, e in valid if (e.reward or 0.0) >= 1.0]
    corrupt = [e for g, e in solved if (reward_of(Reward.GATED, e, g.scenario, g.task) or 0.0) < 1.0]
    calls = Counter(
        event.call.name
        for e in episodes
        for event in e.events
        if event.kind is Kind.CALL
        and event.call is not None
        and event.call.klass in (ToolClass.GENERIC, ToolClass.TERMINAL)
    )
    known = [g for g in batch.groups if any(r is not None for r in g.rewards)]
    return {
        "agent_turns": sum(len(agent_turns(e.events)) for e in episodes) / each,
        "unique_4gram_share": shares["unique_4gram_share"],
        "first_turn_unique_4gram_share": pool(_opening(e.events) for e in episodes).to_json()["unique_4gram_share"],
        "generic_calls": shares["generic_calls_per_episode"],
        "transfer_share": shares["transfer_share"],
        "calls_by_tool": {name: number / each for name, number in sorted(calls.items())},
        "error_call_share": shares["error_call_share"],
        "writes_per_episode": said.counts.writes / each,
        "tokens_per_episode": sum(len(row.ids) for e in episodes for row in e.rows) / each,
        "reward_spread": sum(_spread(g.rewards) for g in known) / max(1, len(known)),
        "fault_share": sum(batch.faults.values()) / max(1, batch.episodes),
        "loop_share": sum(_loops(e) for e in episodes) / each,
        "idle_success_share": sum(count(e.events).writes == 0 for _, e in solved) / each,
        "corrupt_success_share": len(corrupt) / each,
    }


def staleness_metrics(batch: Batch, trained: int) -> dict[str, Any]:
    """How many updates the weights that drew a token lie behind those that it trains (`trained` updates old): mean and
    maximum over the agent tokens of a step's kept groups, and the share of these tokens at each distance."""
    lags: Counter[int] = Counter()
    for group in batch.kept:
        for episode, reward in zip(group.episodes, group.rewards, strict=True):
            if reward is None:
                continue
            known = episode.agent.get("weight_versions") or (episode.agent["weight_version"],)
            drawn = [trained - int(version) for version in known]
            for row in by_token(episode.rows, drawn):
                lags.update(row)
    count = max(1, lags.total())
    return {
        "staleness_mean": sum(lag * tokens for lag, tokens in lags.items()) / count,
        "staleness_max": max(lags, default=0),
        "staleness_shares": {str(lag): tokens / count for lag, tokens in sorted(lags.items())},
    }


def _opening(events: Any) -> list[Any]:
    """The events up to the end of the agent's first turn."""
    starts = agent_turns(events)
    return [event for event in events if len(starts) < 2 or event.i < starts[1]]


def _spread(rewards: list[float | None]) -> float:
    """Standard deviation of the rewards of a group's valid slots."""
    known = [r for r in rewards if r is not None]
    mean = sum(known) / len(known)
    return math.sqrt(sum((r - mean) ** 2 for r in known) / len(known))


def _loops(episode: Any) -> bool:
    return episode.end.reason is EndReason.LIMIT_AGENT and episode.end.detail.endswith(_LOOPS)
