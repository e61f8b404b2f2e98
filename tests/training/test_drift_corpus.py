"""Every sampled token is trained, as it was sampled, where rendering and tokenising again loses some."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.drift import ALL_CASES, Held, corpus_tokenizer, hold_case, rerendered

from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.conversation.protocols import Owner

ALL = tuple(ALL_CASES)


@pytest.fixture(scope="module")
def corpus() -> dict[str, Held]:
    tokenizer = corpus_tokenizer()
    return {name: hold_case(name, tokenizer) for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_every_sampled_token_is_trained_once_as_it_was_sampled(corpus: dict[str, Held], name: str) -> None:
    held = corpus[name]
    assert len(held.prompts) == len(held.turns)
    trained = [
        (token, value)
        for row in held.rows
        for token, owner, value in zip(row.ids, row.owners, row.logprobs, strict=True)
        if owner == Owner.AGENT
    ]
    assert trained == [(token, -float(n)) for turn in held.turns for n, token in enumerate(turn)]
    assert held.transcript.tally.agent_tokens == len(trained)


@pytest.mark.parametrize("name", ALL)
def test_a_turn_is_trained_after_the_very_prompt_that_it_was_drawn_after(corpus: dict[str, Held], name: str) -> None:
    held = corpus[name]
    for prompt, turn in zip(held.prompts, held.turns, strict=True):
        whole = (*prompt, *turn)
        row = next(row for row in held.rows if row.ids[: len(whole)] == whole)
        assert set(row.owners[len(prompt) : len(whole)]) == {Owner.AGENT}


def test_results_stand_in_the_order_of_their_calls(corpus: dict[str, Held]) -> None:
    held = corpus["several calls"]
    events = [e for e in held.transcript.events if e.call]
    assert [e.call.id for e in events if e.kind is Kind.CALL and e.call] == ["call_0", "call_1", "call_2"]
    assert [e.call.id for e in events if e.actor is Actor.WORLD and e.call] == ["call_0", "call_1", "call_2"]
    answers = held.chat.decode(held.prompts[1]).split("<tool_response>\n")[1:]
    assert [answer.split("\n</tool_response>")[0] for answer in answers] == [
        e.text for e in events if e.actor is Actor.WORLD
    ]


def test_rendering_and_tokenising_again_keeps_only_what_was_sampled_as_it_is_rendered(
    corpus: dict[str, Held],
) -> None:
    """The corpus drifts where it says so, so that the claims above are not about conversations that any way keeps."""
    same: dict[str, Any] = {
        name: [ours == theirs for ours, theirs in zip(held.turns, rerendered(held), strict=True)]
        for name, held in corpus.items()
    }
    assert all(same["as rendered"])
    assert all(not all(kept) for name, kept in same.items() if name != "as rendered"), same
