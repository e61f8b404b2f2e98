"""What states and goals are drawn with."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.worlds.draws import another, fitting

RECORDS = {str(n): {"why": "rare" if n == 0 else "often" if n < 50 else ""} for n in range(100)}


@given(st.integers(), st.sets(st.integers(0, 9), min_size=2), st.integers(0, 9))
@settings(max_examples=50)
def test_another_value_is_one_of_the_options_and_never_the_same(seed: int, options: set[int], value: int) -> None:
    assert another(random.Random(seed), sorted(options), value) in options - {value}


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
