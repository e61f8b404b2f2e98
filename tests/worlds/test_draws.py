"""What states and goals are drawn with."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.worlds.draws import Drawn, another, chosen, fitting, other

RECORDS = {str(n): {"why": "rare" if n == 0 else "often" if n < 50 else ""} for n in range(100)}


@given(st.integers(), st.sets(st.integers(0, 9), min_size=2), st.integers(0, 9))
@settings(max_examples=50)
def test_another_value_is_one_of_the_options_and_never_the_same(seed: int, options: set[int], value: int) -> None:
    assert another(random.Random(seed), sorted(options), value) in options - {value}


@given(st.integers())
@settings(max_examples=50)
def test_a_change_of_mind_is_about_another_phone_email_or_option_and_about_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    phone = other(rng, "phone", "123456", {}, ("ann",), "post.net")
    assert phone != "123456" and len(phone) == 6 and phone.isdigit()
    assert other(rng, "email", "x", {}, ("ann",), "post.net").endswith("@post.net")
    assert other(rng, "days", 2, {"days": (1, 2, 3)}, (), "") in (1, 3)
    with pytest.raises(ValueError, match="months"):
        other(rng, "months", 2, {"days": (1, 2, 3)}, (), "")


@given(st.integers(), st.sampled_from(["possible", "refused"]), st.booleans())
@settings(max_examples=50)
def test_a_fitting_record_is_one_about_which_the_wish_comes_true(seed: int, wish: str, spread: bool) -> None:
    found = fitting(random.Random(seed), RECORDS, lambda record: record["why"], wish, spread)
    assert found is not None
    key, why = found
    assert why == RECORDS[key]["why"] and bool(why) == (wish == "refused")


def test_nothing_fits_where_no_record_does() -> None:
    assert fitting(random.Random(0), {}, lambda record: "", "possible") is None
    assert fitting(random.Random(0), RECORDS, lambda record: "", "refused") is None


def test_spread_out_a_rare_reason_comes_as_often_as_a_common_one() -> None:
    def reasons(spread: bool) -> Counter[str]:
        rng = random.Random(1)
        drawn = [fitting(rng, RECORDS, lambda record: record["why"], "refused", spread) for _ in range(400)]
        return Counter(row[1] for row in drawn if row)

    assert reasons(False)["rare"] < 40 and 160 < reasons(True)["rare"] < 240


GOALS: list[Drawn] = [
    ({"loan_id": str(n)}, "it is gone" if n == 0 else "the loan is 7 days late", {}) for n in range(9)
]
POSSIBLE: list[Drawn] = [({"loan_id": str(n)}, "", {}) for n in range(20, 29)]


@given(st.integers(), st.sampled_from(["possible", "refused"]), st.integers(0, 30).map(str))
@settings(max_examples=50)
def test_a_chosen_goal_fits_the_wish_and_leaves_an_earlier_ones_record_alone(seed: int, wish: str, used: str) -> None:
    row = chosen(random.Random(seed), GOALS + POSSIBLE, wish, {"loan_id": used}, ("loan_id",))
    assert row in (GOALS if wish == "refused" else POSSIBLE)
    assert row and row[0]["loan_id"] != used


def test_no_goal_is_chosen_where_none_fits() -> None:
    assert chosen(random.Random(0), GOALS, "possible", {}, ("loan_id",)) is None
    assert chosen(random.Random(0), GOALS[:1], "refused", {"loan_id": "0"}, ("loan_id",)) is None


def test_of_refusals_a_rare_reason_is_not_crowded_out_by_a_common_one() -> None:
    rng = random.Random(1)
    drawn = [chosen(rng, GOALS, "refused", {}, ("loan_id",)) for _ in range(400)]
    reasons = Counter(row[1] for row in drawn if row)
    assert reasons["it is gone"] > 300 and reasons["the loan is 7 days late"] > 0
