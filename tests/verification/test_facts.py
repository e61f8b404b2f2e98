"""Facts: the same value in another form is known, a value from nowhere is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.verification.facts import facts, unknown


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("your order #W-12ab is on its way", "order w12ab"),
        ("that is $1,093.50 in all", '{"total": 1093.5}'),
        ("it comes on May 3rd", "2025-05-03"),
        ("on the 3rd of May 2025", "2025-05-03"),
        ("on 5/3/2025", "2025-05-03"),
        ("at 2:30 pm", "2025-05-03T14:30:00"),
        ("at 14:30", "half past two, so 2:30 pm"),
        ("write to ann@post.net", "my mail is Ann@post.net."),
        ("the card ending in 4821", "card 55554821"),
        ("you have two loans, 1. and 2.", ""),
        ("for 14 days", "i need it for two weeks"),
        ("we keep it for 21 days", "three weeks please"),
        ("25 euros", "25.00"),
        ("room B-204", "b204"),
        ("the branch backup-release-2", "release-2 is the branch"),
        ("into B5 and AB12", '{"used_range": "A1:AC14"}'),
    ],
)
def test_what_was_said_in_another_form_is_known(words: str, known: str) -> None:
    assert unknown(words, known, "") == []


@pytest.mark.parametrize(
    ("words", "known", "missing"),
    [
        ("your order is #W99", "order #W98", "w99"),
        ("that is $48.90", "48.50 and 0.40", "48.9"),
        ("it comes on May 4th", "2025-05-03", "05-04"),
        ("on 2024-05-03", "2025-05-03", "2024-05-03"),
        ("at 2:30 pm", "at 2:30 in the night", "14:30"),
        ("write to ann@post.org", "ann@post.net", "ann@post.org"),
        ("case 990017", "", "990017"),
        ("card ending in 4822", "card 55554821", "4822"),
        ("the branch backup-release-3", "release-2 is the branch", "backuprelease3"),
        ("into D5", '{"used_range": "A1:C14"}', "d5"),
        ("into B15", '{"used_range": "A1:C14"}', "b15"),
    ],
)
def test_a_value_from_nowhere_is_named(words: str, known: str, missing: str) -> None:
    assert unknown(words, known, "") == [missing]


def test_the_policy_and_the_tools_are_known() -> None:
    assert unknown("basic members have 30 days", "", "basic 30") == []


@given(st.text(max_size=80))
def test_whatever_a_text_holds_repeating_it_invents_nothing(text: str) -> None:
    assert unknown(text, text, "") == []


@given(*[st.text(alphabet="0123456789 ampy:/-.,#$@T\n", max_size=40)] * 2)
def test_what_is_known_line_by_line_is_what_is_known_at_once(one: str, other: str) -> None:
    both = facts(f"{one}\n{other}")
    for name in both.__dataclass_fields__:
        assert getattr(both, name) == getattr(facts(one), name) | getattr(facts(other), name)


@given(st.text(alphabet=st.characters(categories=["Lu", "Ll", "Zs", "Po"], exclude_characters="@"), max_size=60))
def test_a_text_without_digits_and_addresses_has_no_facts(text: str) -> None:
    found = facts(text)
    assert not (found.emails or found.dates or found.times or found.numbers or found.ids)
