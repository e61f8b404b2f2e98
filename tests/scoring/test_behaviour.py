"""Behaviour that needs the rules and the task: consent, the partial outcome, pace, what a hand-over tells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scoring.episode_maker import Talk
from scoring.judged_talks import talk

from muarl_cli.conversation.events import Kind, ToolClass
from muarl_cli.scoring.behaviour import Conduct, conduct
from muarl_cli.scoring.confirm import Consent, consents
from muarl_cli.scoring.layers import book_of, judge
from muarl_cli.scoring.rules import parse_rules
from muarl_cli.scoring.trace import read
from muarl_cli.worlds.domain import BUILTIN, builtin

(RULE,) = parse_rules([{"id": "confirm", "kind": "confirm", "what": "", "without": ["customer_id"]}], "here")
BLUE, GREEN = ({"order_id": "4821", "option": colour} for colour in ("blue", "green"))


def written(made: Talk, values: dict[str, str]) -> Talk:
    return made.call("change_option", ToolClass.WRITE, True, values)


def asked() -> Talk:
    return Talk().user("hi").agent("order 4821 in blue. ok?").user("yes.")


def told() -> Talk:
    return Talk().user("make order 4821 green, please.")


def test_each_way_to_a_write_has_its_name() -> None:
    two = Talk().user("hi").agent("order 4821 in blue, then in green. ok?").user("yes.")
    found = {
        Consent.GIVEN: consents(RULE, read(written(asked(), BLUE).end())),
        Consent.STALE: consents(RULE, read(written(asked(), GREEN).end())),
        Consent.IMPLICIT: consents(RULE, read(written(told(), GREEN).end())),
        Consent.NONE: consents(RULE, read(written(told(), BLUE).end())),
    }
    assert all(consent == [kind] for kind, consent in found.items())
    assert consents(RULE, read(written(written(two, BLUE), GREEN).end())) == [Consent.BATCHED, Consent.BATCHED]


def of(name: str, agent: str, number: int = 12) -> Conduct:
    domain = builtin(name)
    tasks = [task for task in domain.tasks("dev") if task.writes][:number]
    rows = [(task, talk(domain, task, agent)) for task in tasks]
    return sum((conduct(book_of(domain), e, t, judge(e, domain, t))[0] for t, e in rows), Conduct())


@pytest.mark.parametrize("name", BUILTIN)
def test_hasty_writes_are_never_confirmed_and_come_sooner(name: str) -> None:
    careful, hasty = of(name, "careful").to_json(), of(name, "hasty").to_json()
    assert careful["confirmation_discipline"] == 1.0 and hasty["confirmation_discipline"] == 0.0
    assert careful["stale_writes"] == careful["implicit_writes"] == 0 < hasty["implicit_writes"]
    assert careful["gold_write_share"] == 1.0
    assert hasty["steps_to_write"] < careful["steps_to_write"]


@pytest.mark.parametrize("name", BUILTIN)
def test_the_partial_outcome_counts_gold_writes_one_by_one(name: str) -> None:
    domain = builtin(name)
    task = next(t for t in domain.tasks("train") if len(t.gold_writes) == 2)
    episode = talk(domain, task, "careful")
    last = max(e.i for e in episode.events if e.kind is Kind.CALL and e.call and e.call.klass is ToolClass.WRITE)
    half = replace(episode, events=tuple(e for e in episode.events if e.i not in (last, last + 1)))
    found = [conduct(book_of(domain), e, task, judge(e, domain, task))[0].gold_writes_done for e in (episode, half)]
    assert found == [2, 1]


def test_a_write_without_arguments_before_a_hand_over_asks_for_no_value_in_its_summary() -> None:
    domain = builtin("retail")
    task = domain.tasks("dev")[0]
    made = Talk().user("hi").call("close_desk", ToolClass.WRITE, True, {})
    made = made.call("transfer_to_human_agents", ToolClass.TERMINAL, True, {"summary": "the desk is closed"})
    episode = replace(talk(domain, task, "careful"), events=made.end())
    found = conduct(book_of(domain), episode, task, judge(episode, domain, task))[0]
    assert found.handed_over == 1 and found.handover_items == 0


@pytest.mark.parametrize("name", BUILTIN)
def test_a_full_summary_covers_more_than_a_generic_one(name: str) -> None:
    domain = builtin(name)
    task = next(t for t in domain.tasks("train") if any(c.name == "transfer_to_human_agents" for c in t.gold))
    episode = talk(domain, task, "careful")
    at = next(e for e in episode.events if e.kind is Kind.CALL and e.call and e.call.klass is ToolClass.TERMINAL)
    assert at.call is not None

    def coverage(summary: str) -> float:
        call = replace(at, call=replace(at.call, arguments={"summary": summary}))
        changed = replace(episode, events=tuple(call if e.i == at.i else e for e in episode.events))
        share = conduct(book_of(domain), changed, task, judge(changed, domain, task))[0].to_json()["handover_coverage"]
        assert isinstance(share, float)
        return share

    everything = " ".join(
        str(v) for e in episode.events if e.kind is Kind.CALL and e.call for v in (e.call.arguments or {}).values()
    )
    assert coverage(everything) == 1.0
    assert coverage("please help this user") == 0.0
