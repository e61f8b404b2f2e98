"""The books of the sampled tokens: they balance to the token, and a token that is lost stops the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.rl_batches import Batch, Group, samples_of
from muarl_cli.pipeline.token_balance import LEFT, SAMPLED, TRAINED, rl_balance, sft_balance, totals
from muarl_cli.training.advantages import Method, group_advantages
from muarl_cli.training.packing import agent_tokens


def row(tokens: int, owner: Owner = Owner.AGENT) -> TokenRow:
    owners = (int(Owner.USER), *[int(owner)] * tokens)
    return TokenRow(tuple(range(tokens + 1)), owners, (0.0,) * (tokens + 1))


def episode(tokens: int, reward: float | None = 1.0) -> Any:
    reason = EndReason.USER_FAULT if reward is None else EndReason.USER_STOP
    return SimpleNamespace(
        episode_id=f"e{tokens}",
        usage={"agent_tokens": tokens},
        valid=reward is not None,
        reward=reward,
        end=SimpleNamespace(reason=reason),
        rows=(row(tokens),),
    )


def batch_of(groups: list[list[tuple[int, float | None]]], replaced: list[int]) -> Batch:
    batch = Batch(replaced=[episode(tokens, None) for tokens in replaced])
    for slots in groups:
        rewards = [reward for _, reward in slots]
        found = group_advantages(rewards, Method.MEAN)
        episodes = [episode(tokens, reward) for tokens, reward in slots]
        group = Group(None, None, episodes, rewards, list(found.advantages))  # type: ignore[arg-type]
        batch.groups.append(group)
        if found.kept:
            batch.kept.append(group)
    return batch


def counted(batch: Batch, **more: Any) -> dict[str, Any]:
    """What a trainer would say of the batch's samples."""
    return {"agent_tokens": sum(agent_tokens(sample.row) for sample in samples_of(batch)), "updates": 1, **more}


SLOTS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 1.0, None])), min_size=2, max_size=5)


@given(st.lists(SLOTS, max_size=4), st.lists(st.integers(1, 5), max_size=3))
def test_sampled_is_trained_and_what_is_itemised_whatever_the_batch(
    groups: list[list[tuple[int, float | None]]], replaced: list[int]
) -> None:
    batch = batch_of(groups, replaced)
    found = rl_balance(batch, counted(batch))
    logged = sum(tokens for slots in groups for tokens, _ in slots) + sum(replaced)
    assert found[SAMPLED] == logged == found[TRAINED] + sum(found[LEFT].values())
    assert all(found[LEFT].values())


def test_every_reason_is_itemised() -> None:
    batch = batch_of([[(5, 1.0), (7, 0.0), (2, None)], [(3, 1.0), (4, 1.0)], [(6, None), (8, None)]], [10])
    found = rl_balance(batch, counted(batch, gated=0.125, masked=0.125))
    assert found[LEFT] == {"group:no_spread": 7, "invalid:user_fault": 2 + 6 + 8 + 10, "off_policy": 3}
    assert found[TRAINED] == 9 and found[SAMPLED] == 45
    skipped = rl_balance(batch, counted(batch, updates=0))
    assert skipped[TRAINED] == 0 and skipped[LEFT]["not_applied"] == 12
    both = totals([found, {"reward": 1.0}, skipped])
    assert both["sampled"] == 90 and both["trained"] == 9 and both["left"]["not_applied"] == 12


def test_a_token_that_is_lost_on_the_way_to_the_trainer_stops_the_run() -> None:
    batch = batch_of([[(5, 1.0), (7, 0.0)]], [])
    said = counted(batch)
    with pytest.raises(MuarlError, match="were lost") as caught:
        rl_balance(batch, said | {"agent_tokens": said["agent_tokens"] - 1})
    assert caught.value.code is ExitCode.INTERNAL and "12" in caught.value.why and "11" in caught.value.why


def test_a_token_that_is_lost_between_the_engine_and_the_rows_names_its_episode() -> None:
    batch = batch_of([[(5, 1.0), (7, 0.0)]], [])
    batch.kept[0].episodes[1].rows = (row(6),)
    with pytest.raises(MuarlError, match="were lost") as caught:
        rl_balance(batch, counted(batch))
    assert caught.value.where == "e7" and "hold 6" in caught.value.why


def test_a_token_that_two_rows_train_is_no_balance_either() -> None:
    batch = batch_of([[(5, 1.0), (7, 0.0)]], [])
    batch.kept[0].episodes[0].rows = (row(5), row(5))
    with pytest.raises(MuarlError, match="were lost"):
        rl_balance(batch, counted(batch))
    batch.kept[0].episodes[0].rows = (row(5), row(5, Owner.EARLIER))
    assert rl_balance(batch, counted(batch))[TRAINED] == 12


def _epoch(*tokens: int, of: int = 4) -> list[dict[str, Any]]:
    return [{"epoch": (i + 1) / of, "agent_tokens": n, "loss": 1.0} for i, n in enumerate(tokens)]


def test_an_epoch_of_fine_tuning_balances_too() -> None:
    episodes = [episode(n) for n in (1, 2, 3, 4, 5, 6)]
    rows = [(e, e.rows) for e in episodes]
    train = [e.rows[0] for e in episodes[:4]]
    others = {"held_out": list(episodes[4].rows), "too_long": list(episodes[5].rows)}
    whole = sft_balance(rows, train, others, _epoch(4, 3, 2, 1, 4, 3))
    assert whole == {"agent": 21, "trained_an_epoch": 10, "left": {"held_out": 5, "too_long": 6}}
    cut = sft_balance(rows, train, others, _epoch(4, 3))
    assert cut["trained_an_epoch"] == 7 and cut["left"]["not_reached"] == 3
    broken = _epoch(4, 3, 2, 1)
    del broken[1]["loss"]
    found = sft_balance(rows, train, others, broken)
    assert found["left"]["not_applied"] == 3 and found["trained_an_epoch"] == 7


def test_fine_tuning_stops_where_a_row_or_a_token_is_lost() -> None:
    episodes = [episode(n) for n in (1, 2, 3, 4)]
    rows = [(e, e.rows) for e in episodes]
    train = [e.rows[0] for e in episodes]
    with pytest.raises(MuarlError, match="were lost"):
        sft_balance(rows, train[1:], {}, _epoch(4, 3, 2, 1))
    with pytest.raises(MuarlError, match="were lost"):
        sft_balance(rows, train, {}, _epoch(4, 3, 2, 0))
    episodes[2].rows = (row(2),)
    with pytest.raises(MuarlError, match="were lost"):
        sft_balance([(e, e.rows) for e in episodes], [e.rows[0] for e in episodes], {}, _epoch(4, 2, 2, 1))
