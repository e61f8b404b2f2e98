"""Behaviour is counted from events alone; each test is one conversation whose counts can be seen by eye."""

import pytest
from scoring.episode_maker import Talk

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, ToolClass
from muarl_cli.scoring.metrics import Counts, count, pool

WRITE, GENERIC, TERMINAL = ToolClass.WRITE, ToolClass.GENERIC, ToolClass.TERMINAL


def test_turns_are_user_messages_plus_tool_calls() -> None:
    talk = Talk().agent("Hello", "greeting").user("hi").call("find").call("find", arguments={"id": 1}).agent("ok")
    counts = count(talk.user("bye").end())
    assert (counts.user_turns, counts.calls, counts.turns) == (2, 2, 4)


def test_calls_of_the_user_are_turns_and_not_the_agents_calls() -> None:
    counts = count(Talk().user("hi").call("restart", WRITE, actor=Actor.USER).user("done").end())
    assert (counts.calls, counts.user_calls, counts.writes, counts.turns) == (0, 1, 0, 3)


def test_a_repeat_is_redundant_until_a_write_changes_the_state() -> None:
    talk = Talk().user("hi").call("get", arguments={"id": 25, "all": True}).agent("Shall I?").user("yes")
    talk.call("get", arguments={"all": True, "id": 25.0})  # the same meaning, hence the same call
    talk.call("put", WRITE).call("get", arguments={"id": 25, "all": True})
    assert count(talk.end()).redundant_calls == 1


def test_a_failed_write_excuses_no_repeat() -> None:
    talk = Talk().user("hi").call("get").call("put", WRITE, ok=False).call("get").call("put", WRITE, ok=False)
    counts = count(talk.end())
    assert (counts.redundant_calls, counts.writes, counts.error_calls) == (2, 0, 2)


def test_generic_and_redundant_calls_are_unnecessary_once_each() -> None:
    talk = Talk().user("hi").call("think", GENERIC).call("think", GENERIC).call("get").call("get")
    counts = count(talk.end())
    assert (counts.generic_calls, counts.redundant_calls, counts.unnecessary_calls) == (2, 2, 3)


def test_malformed_and_unknown_calls_are_errors_of_their_own_kind() -> None:
    talk = Talk().user("hi").call("get", ok=False, text="{bad").call("nosuch", None, ok=False).call("get", ok=False)
    counts = count(talk.end())
    assert (counts.error_calls, counts.malformed_calls) == (3, 2)


def test_a_confirmed_write_needs_question_and_reply() -> None:
    asked = Talk().user("change it").agent("I will set 3. Is that right?").user("yes").call("put", WRITE).end()
    hasty = Talk().user("change it").call("put", WRITE).end()
    unanswered = Talk().user("change it").agent("Right?", "beside_calls").call("put", WRITE).end()
    greeted = Talk().agent("How can I help?", "greeting").user("change it").call("put", WRITE).end()
    assert [count(events).confirmed_writes for events in (asked, hasty, unanswered, greeted)] == [1, 0, 0, 0]
    assert [count(events).unconfirmed_episodes for events in (asked, hasty, unanswered, greeted)] == [0, 1, 1, 1]


def test_one_reply_confirms_one_write() -> None:
    talk = (
        Talk().user("two things").agent("Both?").user("yes").call("put", WRITE).call("put", WRITE, arguments={"b": 1})
    )
    counts = count(talk.end())
    assert (counts.writes, counts.confirmed_writes, counts.unconfirmed_episodes) == (2, 1, 1)


def test_a_failed_write_does_not_spend_the_consent() -> None:
    talk = (
        Talk().user("do").agent("Sure?").user("yes").call("put", WRITE, ok=False).call("put", WRITE, arguments={"b": 1})
    )
    assert count(talk.end()).confirmed_writes == 1


@pytest.mark.parametrize("reason", [EndReason.TRANSFER, EndReason.USER_STOP])
def test_transfers_are_read_off_the_end(reason: EndReason) -> None:
    counts = count(Talk().user("hi").call("hand_over", TERMINAL).end(reason))
    assert counts.transfers == (reason is EndReason.TRANSFER)


def test_only_words_that_the_user_heard_are_words() -> None:
    talk = Talk().agent("May I help you today?", "greeting").user("why?").agent("Which one? The red one?")
    counts = count(talk.agent("let me look?", "beside_calls").user("yes").end())
    assert (counts.messages, counts.words, counts.questions) == (1, 5, 2)


def test_repeated_phrases_lower_the_share_of_unique_fourgrams() -> None:
    parrot = Talk().user("a").agent("please wait a moment").user("b").agent("Please wait a moment").end()
    assert pool([parrot]).to_json()["unique_4gram_share"] == 0.5
    assert pool([parrot, parrot]).to_json()["unique_4gram_share"] == 0.25


def test_a_message_has_a_fourgram_for_each_word_but_three() -> None:
    talk = Talk().user("a").agent("one two three four five").user("b").agent("one two three").end()
    assert pool([talk]).fourgrams == pool([talk]).unique_fourgrams == 2


def test_rates_of_nothing_are_null_not_zero() -> None:
    figures = pool([]).to_json()
    assert figures["episodes"] == figures["writes"] == 0
    assert figures["error_call_share"] is None and figures["confirmed_write_share"] is None


def test_pooling_adds_counts() -> None:
    one = Talk().user("hi").call("get").end()
    assert pool([one, one, one]).counts == count(one) + count(one) + count(one)
    assert Counts() + count(one) == count(one)
