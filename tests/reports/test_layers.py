"""Layers as they are stored: read in either form, never guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.reports.layers import LAYERS, Judged, from_verdict

PASSED = dict.fromkeys(LAYERS, "pass")
FINDING = {"rule": "r", "layer": "policy", "verdict": "fail", "at": 3, "why": "w"}


def test_a_verdict_is_read_as_it_was_stored() -> None:
    read = from_verdict({"layers": {"verdicts": PASSED, "findings": [FINDING], "clean_success": True}})
    assert read.complete and read.broken == ("r",) and read.findings[0]["at"] == 3


def test_layers_without_their_findings_are_of_another_form_and_not_believed() -> None:
    assert not from_verdict({"layers": PASSED, "findings": [FINDING]}).layers


@pytest.mark.parametrize("layer", LAYERS)
def test_clean_needs_every_layer_and_any_failure_ends_it(layer: str) -> None:
    assert Judged(PASSED).clean is True
    assert Judged({**PASSED, layer: "fail"}).clean is False
    assert Judged({**PASSED, layer: "na"}).clean is (layer != "outcome")
    assert Judged({name: "pass" for name in LAYERS if name != layer}).clean is None
    assert Judged({**PASSED, layer: "fail"}).corrupt is (layer in ("policy", "safety"))


def test_a_failed_safety_layer_counts_at_least_one_event() -> None:
    assert Judged({**PASSED, "safety": "fail"}).safety_events == 1
    events = tuple({**FINDING, "layer": "safety"} for _ in range(3))
    assert Judged({**PASSED, "safety": "fail"}, events).safety_events == 3


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["layers", "verdicts", "findings", "policy", "at", "rule"]), inner, max_size=3
            ),
        ),
        max_leaves=12,
    )
)
def test_whatever_a_verdict_holds_reading_it_never_fails(value: Any) -> None:
    judged = from_verdict({"layers": value})
    assert judged.clean in (None, False, True) and set(judged.layers) <= set(LAYERS)
