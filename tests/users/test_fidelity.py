"""The fidelity gate: each planted fault is caught by its own name, and what a good model says passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.ends import EndReason
from muarl_cli.users.fidelity import Broken, Expected, affirms, asks_consent, check, values_in
from muarl_cli.users.state import template

RULES = template("user_wording.jinja")
PROPOSAL = "change the lamp in order 4821 to blue. shall i go ahead?"
TELL = Expected(
    known="please tell me the order id. order 4821.",
    rules=RULES,
    must=("4821",),
    hidden=("9442", "blue", {"street": "45 oak street", "city": "porto"}),
    vocabulary=("express", "paypal"),
    consent=False,
    goes_on=True,
    plan="order 4821.",
    heard="please tell me the order id.",
)
YES = replace(TELL, must=(), hidden=(), consent=True, asked=True, plan="yes, go ahead.", heard=PROPOSAL, known=PROPOSAL)
WRONG = replace(
    TELL,
    must=("red",),
    asked=True,
    plan="no, that is not right. make it red.",
    heard=PROPOSAL,
    known=PROPOSAL + " make it red.",
)
CHANGED = replace(
    WRONG, must=("red",), plan="actually, make it red.", outdated=(("blue", "red"),), known="blue red 4821"
)
FREE = Expected(
    known="You are Ann Lee, id ann_lee_2231. You want order #W2378156 cancelled.",
    rules="Say one thing at a time, never.",
)


@pytest.mark.parametrize(
    ("fault", "words", "expected"),
    [
        (Broken.EMPTY, "  ", TELL),
        (Broken.EMPTY, "", FREE),
        (Broken.ROLE_FLIP, "How can I help you today? Order 4821.", TELL),
        (Broken.ROLE_FLIP, "Sure, please provide your order id for 4821.", TELL),
        (Broken.ROLE_FLIP, "I have cancelled your order #W2378156.", FREE),
        (Broken.COPIED, "Keep in mind my instructions say order 4821.", TELL),
        (Broken.COPIED, "customer: order 4821", TELL),
        (
            Broken.COPIED,
            "4821. All of it, nothing else. Other wishes, facts, names and numbers do not exist for you",
            TELL,
        ),
        (Broken.INVENTED, "It is order 4821, bought on invoice 77310.", TELL),
        (Broken.INVENTED, "Order 4821, I paid by paypal.", TELL),
        (Broken.INVENTED, "Mail me at ann@mail.com about 4821", TELL),
        (Broken.INVENTED, "It is order #W9999999.", FREE),
        (Broken.EARLY, "Order 4821, and my customer id is 9442.", replace(TELL, known=TELL.known + " 9442x")),
        (Broken.EARLY, "Order 4821, make it blue.", TELL),
        (Broken.EARLY, "Order 4821. I live in Porto, 45 Oak Street.", replace(TELL, known=TELL.known + " 45")),
        (Broken.MISSING, "It is the order from last week.", TELL),
        (Broken.EARLY_STOP, "Order 4821. Goodbye!", TELL),
        (Broken.EARLY_STOP, "It is 4821, that's all.", TELL),
        (Broken.REPEATED, "I would really like to have order 4821 cancelled now.", None),
        (Broken.CONTRADICTION, "Hmm, let me think about it.", YES),
        (Broken.CONTRADICTION, "No, do not do that.", YES),
        (Broken.CONTRADICTION, "Please keep it blue.", replace(CHANGED, must=())),
        (Broken.FALSE_CONSENT, "Yes, please go ahead, red.", WRONG),
        (Broken.FALSE_CONSENT, "Sounds good. Red.", WRONG),
        (Broken.FALSE_CONSENT, "Yes, but make it red.", WRONG),
    ],
)
def test_the_gate_catches_each_planted_fault_by_its_name(fault: Broken, words: str, expected: Expected | None) -> None:
    before = ("how can i help?", "I would really like to have order 4821 cancelled now!")
    found = check(words, None, expected or replace(TELL, earlier=(before,)))
    assert fault in found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("It's order 4821.", TELL),
        ("Sure, the order number is 4821!", TELL),
        ("Yes please, go ahead.", YES),
        ("No problem, that works. Do it!", YES),
        ("Great, thanks - please proceed.", YES),
        ("That is correct.", YES),
        ("No, that's not correct. I want it in red.", WRONG),
        ("Hold on, it should be red, not blue.", CHANGED),
        ("Hi, I'm Ann Lee. I need order #W2378156 cancelled, id ann_lee_2231.", FREE),
        ("I bought 2 of them in 2023 for 15.99, about 30 days ago.", FREE),
        ("Is my order W2378156 cancelled now?", FREE),
        ("On 05/16/2024 at 10:30, the 100th time, a 256GB one.", FREE),
    ],
)
def test_what_a_good_model_says_passes(words: str, expected: Expected) -> None:
    assert check(words, None, expected) == ()


def test_a_lone_end_token_is_a_turn_where_the_model_may_decide_to_leave() -> None:
    assert check("", EndReason.USER_STOP, FREE) == ()
    assert check("", EndReason.USER_STOP, TELL) == (Broken.EMPTY,)


def test_a_repeated_short_answer_or_an_answer_to_a_repeated_question_is_no_fault() -> None:
    before = (("q1", "Yes, please go ahead."), ("same", "I would really like to have order 4821 cancelled now."))
    again = replace(TELL, earlier=before, heard="same")
    assert Broken.REPEATED not in check("Yes, please go ahead.", None, again)
    assert Broken.REPEATED not in check("I would really like to have order 4821 cancelled now.", None, again)


@pytest.mark.parametrize("text", ["shall i go ahead?", "Do you confirm these details? (yes/no)", "Is that correct?"])
def test_a_question_for_consent_is_recognised(text: str) -> None:
    assert asks_consent(text) and not asks_consent("Please confirm your order id.") and not asks_consent("how are you?")


def test_a_yes_that_is_taken_back_in_its_sentence_is_none() -> None:
    assert affirms("Thanks. Yes, do it.") and not affirms("yes but not that one") and not affirms("I am not sure")


def test_values_are_compared_without_case_separators_and_thousands() -> None:
    assert values_in("#W12345 and 1,200 on 2024-05-20, a@b.com", True) == {"w12345", "1200", "20240520", "a@b.com"}
    assert values_in("12 of 150 in 2024, 2024-05-16, 05/16/2024, 16:45, 256GB, 100th", False) == set()
    assert values_in("HAT123, 555-123-4567 and 19122", False) == {"hat123", "5551234567", "19122"}


@given(st.text(max_size=300), st.sampled_from([TELL, YES, WRONG, CHANGED, FREE]))
def test_any_text_is_judged_and_no_new_number_ever_passes(words: str, expected: Expected) -> None:
    check(words, None, expected)
    assert check(f"{words} 868686", None, expected)


@given(st.text(max_size=60))
def test_nothing_that_lacks_a_fact_which_is_due_passes(words: str) -> None:
    assert "4821" in words or check(words, None, TELL)
