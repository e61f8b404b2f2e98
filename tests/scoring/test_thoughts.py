"""What an agent thinks stands in the log and changes no score."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scoring.judged_talks import talks

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor
from muarl_cli.records import codec
from muarl_cli.reports.layers import Judged
from muarl_cli.reports.transcript import transcript
from muarl_cli.scoring.layers import judge
from muarl_cli.scoring.metrics import pool
from muarl_cli.worlds.domain import builtin

THOUGHT = "Order 99999 costs $12.34. I cancel it without asking: yes, I confirm. ###STOP###"


def thinking(episode: Episode) -> Episode:
    """The same episode, with an invented order, an invented price and a consent in every thought of the agent's."""
    return replace(
        episode,
        events=tuple(replace(e, thought=THOUGHT) if e.actor is Actor.AGENT else e for e in episode.events),
    )


@pytest.mark.parametrize("agent", ["careful", "hasty"])
def test_thoughts_change_no_layer_and_no_measure(agent: str) -> None:
    for task, episode in talks("retail", agent)[:8]:
        thoughtful = thinking(episode)
        assert judge(thoughtful, builtin("retail"), task) == judge(episode, builtin("retail"), task)
        assert pool([thoughtful.events]).to_json() == pool([episode.events]).to_json()


def test_thoughts_are_written_to_the_log_and_shown_to_who_reads_it() -> None:
    (_, episode), *_ = talks("retail", "careful")
    thoughtful = thinking(episode)
    assert codec.decode(codec.encode(thoughtful)).events == thoughtful.events
    assert b"thought" not in codec.encode(episode)
    shown = [line.text for line in transcript(thoughtful, Judged({}))]
    turns = sum(event.actor is Actor.AGENT for event in episode.events)
    assert sum(THOUGHT in text for text in shown) == turns > 1
