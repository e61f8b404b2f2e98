"""What became of the tokens that a policy sampled: trained tokens = sampled tokens - an itemised list.

Three books are kept by three hands: the loop counts what was sampled (`usage.agent_tokens` in the log), the rows say
who owns a token, and the trainer counts what it takes a loss of. Invariant: they balance at every step of `rl-train`
and over the first epoch of `sft`, to the token; where they do not, tokens were lost on the way, and the run stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.rl_batches import Batch

SAMPLED, TRAINED, LEFT = "tokens_sampled", "tokens_trained", "tokens_left"


def sampled_in(rows: Iterable[TokenRow]) -> int:
    """How many tokens of the rows were sampled by the policy and are theirs to train."""
    return sum(owner == Owner.AGENT for row in rows for owner in row.owners)


def rl_balance(batch: Batch, update: Mapping[str, Any]) -> dict[str, Any]:
    """The balance of a step: tokens sampled, trained, and left out by reason. `update` are the trainer's metrics.

    Reasons: `invalid:END` (of the episode, replaced attempts included), `group:WHY` (dropped with its group),
    `unscored` (no reward), `off_policy` (stopped by the sequence gate or the off-policy mask), `not_applied` (the step
    was not finite).
    Raises `MuarlError` (INTERNAL) where the books differ.
    """
    from muarl_cli.training.advantages import Method, group_advantages

    left: Counter[str] = Counter()
    taken = 0
    for episode in batch.replaced:
        left[f"invalid:{episode.end.reason.value}"] += episode.usage["agent_tokens"]
    for group in batch.groups:
        found = group_advantages(group.rewards, Method.MEAN)
        for episode, reward in zip(group.episodes, group.rewards, strict=True):
            tokens = episode.usage["agent_tokens"]
            if not episode.valid:
                left[f"invalid:{episode.end.reason.value}"] += tokens
            elif not found.kept:
                left[f"group:{found.why}"] += tokens
            elif reward is None:
                left["unscored"] += tokens
            else:
                _same_in_rows(episode)
                taken += tokens
    trained = int(update["agent_tokens"])
    if trained != taken:
        raise _lost(f"{taken} sampled tokens were to be trained, and the trainer counts {trained}")
    stopped = round((update.get("gated", 0.0) + update.get("masked", 0.0)) * trained)
    spared = {"off_policy": stopped} if update["updates"] else {"not_applied": trained}
    left.update({reason: tokens for reason, tokens in spared.items() if tokens})
    trained -= sum(spared.values())
    kept = {reason: tokens for reason, tokens in sorted(left.items()) if tokens}
    return {SAMPLED: trained + sum(left.values()), TRAINED: trained, LEFT: kept}


def sft_balance(
    episodes: Iterable[tuple[Episode, Sequence[TokenRow]]],
    train: Sequence[TokenRow],
    others: Mapping[str, Sequence[TokenRow]],
    metrics: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """The balance of an epoch of fine-tuning: agent tokens of the episodes with the rows that were made of them,
    trained ones, and those left out by reason: what `others` names, `not_applied` (the step was not finite),
    `not_reached` (the run ended within its first epoch). `metrics` are the run's. Raises `MuarlError` (INTERNAL) where
    the books differ."""
    agent = 0
    for episode, rows in episodes:
        if rows and rows == episode.rows:
            _same_in_rows(episode)
        agent += sampled_in(rows)
    left = Counter({reason: sampled_in(rows) for reason, rows in others.items()})
    trained, whole = 0, False
    for row in metrics:
        if row["epoch"] <= 1 + 1e-9:
            trained += row["agent_tokens"]
            left["not_applied"] += 0 if "loss" in row else row["agent_tokens"]
            whole = row["epoch"] >= 1 - 1e-9
    held = sampled_in(train)
    apart = sum(left[reason] for reason in others)
    if agent != held + apart:
        raise _lost(f"{agent} agent tokens were read, and {held + apart} are in the training and the other rows")
    if trained > held or (whole and trained != held):
        raise _lost(f"{held} agent tokens were to be trained in an epoch, and the trainer counts {trained}")
    left["not_reached"] = held - trained
    kept = {reason: tokens for reason, tokens in sorted(left.items()) if tokens}
    return {"agent": agent, "trained_an_epoch": trained - left["not_applied"], "left": kept}


def totals(metrics: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The balance of a whole run of `rl-train`, from its metrics."""
    rows = [row for row in metrics if SAMPLED in row]
    left: Counter[str] = Counter()
    for row in rows:
        left.update(row[LEFT])
    return {
        "sampled": sum(row[SAMPLED] for row in rows),
        "trained": sum(row[TRAINED] for row in rows),
        "left": dict(sorted(left.items())),
    }


def _same_in_rows(episode: Episode) -> None:
    held = sampled_in(episode.rows)
    if held != episode.usage["agent_tokens"]:
        raise _lost(
            f"the policy sampled {episode.usage['agent_tokens']} tokens, and the episode's rows hold {held} of them",
            episode.episode_id,
        )


def _lost(why: str, where: str = "") -> MuarlError:
    return MuarlError(
        "sampled tokens were lost on their way to the loss",
        where=where,
        why=why,
        next_step="this is a fault of muarl: keep the run folder and report it; its checkpoints are good up to here",
        code=ExitCode.INTERNAL,
    )
