"""ACEBench's history as text, and calls as the official text, without a checkout."""

from __future__ import annotations

from muarl_cli.benchmarks.acebench import AceReferee, _schema, bracketed
from muarl_cli.benchmarks.acebench_talk import TURN_ERROR, history_of
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import AgentTurn
from muarl_cli.conversation.tools import ToolCall


def _said(actor: Actor, text: str) -> Event:
    return Event(0, actor, Kind.SAY if actor is not Actor.WORLD else Kind.RESULT, text)


TALK = [
    _said(Actor.USER, "hello"),
    _said(Actor.AGENT, "[a(), b()]"),
    _said(Actor.WORLD, '{"status": true, "n": 1.5}'),
    _said(Actor.WORLD, "plain"),
    _said(Actor.AGENT, "[c()]"),
    _said(Actor.WORLD, TURN_ERROR),
    _said(Actor.AGENT, "done?"),
    _said(Actor.USER, "yes"),
]


def test_a_multi_turn_history_has_every_message_and_an_error_as_single_characters() -> None:
    assert history_of("multi_turn", TALK) == (
        "user:hello\nagent:[a(), b()]\nexecution:[{'status': True, 'n': 1.5}, 'plain']\nagent:[c()]\n"
        f"execution:{list(TURN_ERROR)}\nagent:done?\nuser:yes\n"
    )


def test_a_multi_step_history_leaves_the_agents_own_messages_out() -> None:
    assert history_of("multi_step", [*TALK[:4], *TALK[6:]]) == (
        "user:hello\nexecution result:[{'status': True, 'n': 1.5}, 'plain']\nexecution result:yes\n"
    )


def test_calls_are_written_as_the_official_text() -> None:
    calls = [ToolCall("1", "send", {"to": "O'Hara", "n": 2}), ToolCall("2", "look", {})]
    assert bracketed(calls) == '[send(to="O\'Hara", n=2), look()]'


def test_type_names_of_the_data_become_json_schema() -> None:
    given = {"type": "dict", "properties": {"type": {"type": "list", "items": {"type": "float"}}}, "required": []}
    assert _schema(given) == {
        "type": "object",
        "properties": {"type": {"type": "array", "items": {"type": "number"}}},
        "required": [],
    }


class _Words:
    """A checkout in which nothing is a call."""

    class server:
        @staticmethod
        def ask(operation: str, **values: object) -> bool:
            assert operation == "decode"
            return False


def test_the_closing_words_end_it_from_the_third_message_on_and_forty_messages_always() -> None:
    referee = AceReferee(_Words(), "t", "multi_turn")  # type: ignore[arg-type]
    for text in ("hello", "I am well"):
        referee.watch(_said(Actor.USER, text))
    referee.reads(AgentTurn("finish conversation"))
    assert referee.ended() is None
    referee.watch(_said(Actor.USER, "finish conversation"))
    assert referee.ended() == (EndReason.USER_STOP, "finish conversation")
    long = AceReferee(_Words(), "t", "multi_turn")  # type: ignore[arg-type]
    long.watch(_said(Actor.USER, "hello"))
    for _ in range(20):
        assert long.ended() is None
        long.reads(AgentTurn("and then?"))
        long.watch(_said(Actor.USER, "go on"))
    assert long.ended() == (EndReason.AGENT_STOP, "40 messages, the official limit")
