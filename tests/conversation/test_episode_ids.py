"""Hashes and ids: equal meanings are equal, and the same work always has the same id."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.episode import Key
from muarl_cli.hashing import canonical_json, derive_seed, digest

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


def shuffled(value: Any) -> Any:
    """The same meaning in another form: keys reversed, lists as tuples, whole numbers as floats."""
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(list(value.items()))}
    if isinstance(value, list):
        return tuple(shuffled(v) for v in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


@given(VALUES)
@settings(max_examples=200)
def test_key_order_tuples_and_whole_floats_do_not_change_a_digest(value: Any) -> None:
    assert digest(shuffled(value)) == digest(value)
    assert canonical_json(value).isascii()


def test_different_meanings_differ() -> None:
    values = [25, "25", 25.5, [25], {"a": 25}, True, None, "", 0, False, [], {}]
    assert len({digest(v) for v in values}) == len(values)
    assert digest(25) == digest(25.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_values_without_a_json_form_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no canonical JSON"):
        digest(value)


def test_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        canonical_json({1, 2})


def test_derived_seeds_differ_by_part_and_stay_the_same_for_ever() -> None:
    assert derive_seed(0, "user") != derive_seed(0, "agent") != derive_seed(1, "agent")
    assert derive_seed(0, "user") == 963129294112966008


def key(**changes: Any) -> Key:
    base = {
        "run_id": "r", "stage": "rollout", "step": 3, "scenario": "retail", "task_id": "t", "task_hash": "h",
        "split": "train", "rollout": 1, "seed": 7,
    }  # fmt: skip
    return Key(**(base | changes))


def test_the_same_work_has_the_same_id_and_a_retried_attempt_of_it_too() -> None:
    assert key().episode_id == key(attempt=2).episode_id
    others = [key(run_id="s"), key(stage="eval"), key(step=4), key(task_hash="g"), key(rollout=2), key(seed=8)]
    assert len({k.episode_id for k in [key(), *others]}) == 7


def test_a_group_is_shared_by_the_rollouts_of_one_task_in_one_step() -> None:
    assert key(rollout=0, seed=1).group_id == key(rollout=5, seed=9).group_id
    assert key(step=4).group_id != key().group_id != key(task_hash="g").group_id
