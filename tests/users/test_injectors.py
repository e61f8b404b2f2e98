"""Injectors: off they change nothing; on, each fires where it can, is tagged, and a careful agent still serves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
from fakes.opportunities import could
from fakes.talks import LIMITS, AgentOf, hold, stage_of

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Kind, ToolClass
from muarl_cli.conversation.loop import Transcript
from muarl_cli.conversation.protocols import AgentTurn, Stage
from muarl_cli.errors import MuarlError
from muarl_cli.settings.bases import Stage as StageName
from muarl_cli.settings.grammar import INJECTORS
from muarl_cli.settings.resolve import resolve
from muarl_cli.users.agenda import AgendaUser, AgendaUsers
from muarl_cli.users.facts import Vocabulary
from muarl_cli.users.injectors import InjectedUser, Injector, mistyped, rates_from
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import said, value_text
from muarl_cli.worlds.scenario import Task

each_scenario = pytest.mark.parametrize("name", BUILTIN)
each_injector = pytest.mark.parametrize("injector", list(Injector))
EVERYTHING = {injector.value: 1.0 for injector in Injector}


async def talk_of(
    domain: Domain, task: Task, manner: Manner, rates: Mapping[str, float], seed: int = 0
) -> tuple[Transcript, float]:
    stage = stage_of(domain, seed)
    user, world = AgendaUsers(domain.language, rates).open(stage, task), domain.world(task)
    talk = await hold(ScriptedAgents(domain.language, manner).open(stage, task), user, world, LIMITS, domain.greeting)
    return talk, domain.outcome(task, world, talk.events).reward if talk.end.reason.graded else 0.0


def fired(talk: Transcript) -> Counter[str]:
    tags = [tag.removeprefix("inject:") for event in talk.events for tag in event.tags if tag.startswith("inject:")]
    return Counter(tags)


def dialogue(talk: Transcript) -> list[tuple[str, ...]]:
    return [(e.actor, e.kind, e.text, str(e.call), *e.tags) for e in talk.events]


# --- off ---------------------------------------------------------------------------------------------------------


@each_scenario
async def test_without_injectors_nothing_changes(name: str) -> None:
    domain = builtin(name)
    task = domain.tasks("dev")[3]
    stage = stage_of(domain, 1)
    for users in (AgendaUsers(domain.language), AgendaUsers(domain.language, {"tangent": 0.0})):
        assert type(users.open(stage, task)) is AgendaUser
        assert users.info == {"backend": "scripted", "model": "agenda/1", "prompt_hash": ""}
    lines = set(domain.texts())
    assert not any(line in lines for options in domain.language.injections.values() for line in options)


@each_scenario
async def test_an_armed_user_in_whom_nothing_fires_says_the_same_to_the_byte(name: str) -> None:
    domain = builtin(name)
    same = 0
    for seed, task in enumerate(domain.tasks("dev")):
        plain, _ = await talk_of(domain, task, Manner.CAREFUL, {}, seed)
        armed, _ = await talk_of(domain, task, Manner.CAREFUL, {"tangent": 0.5, "adversarial": 0.3}, seed)
        if not {"tangent", "adversarial"} & set(fired(armed)):
            same += 1
            assert dialogue(plain) == dialogue(armed)
    assert 15 < same < 90


# --- on: US-05, US-07 ---------------------------------------------------------------------------------------------


@each_scenario
@pytest.mark.parametrize("manner", [Manner.ORACLE, Manner.CAREFUL])
@pytest.mark.parametrize("rates", [EVERYTHING, {k: v for k, v in EVERYTHING.items() if "after_write" not in k}])
async def test_with_everything_on_every_task_is_still_solved(
    name: str, manner: Manner, rates: Mapping[str, float]
) -> None:
    domain = builtin(name)
    for seed, task in enumerate(domain.tasks("dev")):
        talk, reward = await talk_of(domain, task, manner, rates, seed)
        assert reward == 1, (task.id, talk.end, dialogue(talk))


@each_scenario
@each_injector
async def test_an_injector_forced_on_fires_once_in_every_episode_in_which_it_can_and_is_tagged(
    name: str, injector: Injector
) -> None:
    domain = builtin(name)
    seen = 0
    for seed, task in enumerate(domain.tasks("dev")):
        talk, reward = await talk_of(domain, task, Manner.CAREFUL, {injector.value: 1.0}, seed)
        count = fired(talk)[injector.value]
        assert count <= 1 and reward == 1
        assert count == could(injector, domain, goals_of(task.brief), talk), (task.id, dialogue(talk))
        seen += count
    assert seen > 25


@each_scenario
async def test_rates_are_shares_of_episodes_and_one_injector_does_not_move_another(name: str) -> None:
    domain = builtin(name)
    task = domain.tasks("dev")[0]

    def armed(rates: Mapping[str, float], seed: int) -> set[Injector]:
        stage = Stage(domain.name, "", "", (), "", seed)
        user = AgendaUsers(domain.language, rates).open(stage, task)
        assert isinstance(user, InjectedUser)
        return set(user.armed)

    alone = [Injector.TANGENT in armed({"tangent": 0.2}, seed) for seed in range(2000)]
    beside = [Injector.TANGENT in armed(EVERYTHING | {"tangent": 0.2}, seed) for seed in range(2000)]
    assert alone == beside and 340 < sum(alone) < 460


@each_scenario
async def test_the_same_seed_replays_to_the_byte_with_everything_on_and_seeds_differ(name: str) -> None:
    domain = builtin(name)
    seen = set()
    for seed, task in enumerate(domain.tasks("dev")):
        first, again = [(await talk_of(domain, task, Manner.CAREFUL, EVERYTHING, seed))[0] for _ in range(2)]
        assert dialogue(first) == dialogue(again)
        seen.add(str(dialogue(first)))
    assert len(seen) == len(domain.tasks("dev"))


# --- what each one is ----------------------------------------------------------------------------------------------


@each_scenario
async def test_pushed_or_not_the_careful_agent_declines_and_writes_only_after_a_yes(name: str) -> None:
    domain = builtin(name)
    agree, decline = domain.language.phrases["agree"], domain.language.injections["decline"]
    for seed, task in enumerate(domain.tasks("dev")):
        talk, _ = await talk_of(domain, task, Manner.CAREFUL, {"adversarial": 1, "unavailable_service": 1}, seed)
        last = ""
        for event in talk.events:
            if event.actor is Actor.USER:
                last = event.text
            if event.kind is Kind.CALL and event.call and event.call.klass is ToolClass.WRITE:
                assert last in agree
            if "inject:adversarial" in event.tags or "inject:unavailable_service" in event.tags:
                answer = talk.events[event.i + 1]
                assert any(answer.text.startswith(line) for line in decline)


@each_scenario
async def test_nobody_elses_data_is_read_whatever_the_user_asks_for(name: str) -> None:
    domain = builtin(name)
    for seed, task in enumerate(domain.tasks("dev")[:60]):
        talk, _ = await talk_of(domain, task, Manner.CAREFUL, {"adversarial": 1.0}, seed)
        own = {value_text(v) for goal in goals_of(task.brief) for v in goal.slots.values()}
        for event in talk.events:
            if event.kind is Kind.CALL and event.call and event.call.klass is ToolClass.READ:
                assert {str(v) for v in (event.call.arguments or {}).values()} <= own


@each_scenario
async def test_a_change_after_the_write_counts_as_agreed_for_who_asked_and_is_lost_for_who_did_not(name: str) -> None:
    domain = builtin(name)
    rates = {"mind_change_after_write": 1.0}
    late = lost = 0
    for seed, task in enumerate(domain.tasks("dev")):
        if not any(g.change and not domain.language.intents[g.intent].then_transfer for g in goals_of(task.brief)):
            continue
        talk, reward = await talk_of(domain, task, Manner.CAREFUL, rates, seed)
        assert reward == 1 and fired(talk) == {"mind_change": 1, "mind_change_after_write": 1}
        hasty, hasty_reward = await talk_of(domain, task, Manner.HASTY, rates, seed)
        assert "mind_change_after_write" not in fired(hasty)
        late, lost = late + 1, lost + (hasty_reward == 0)
    assert late > 50 and lost >= 0.9 * late


def opened(goal: Goal, rates: Mapping[str, float], seed: int = 0) -> tuple[AgendaUser, str]:
    language = builtin("retail").language
    user = InjectedUser(language, [goal], seed, rates_from(rates, language))
    return user, user.answer("")[0]


CANCEL = Goal("cancel", {"customer_id": "4282", "order_id": "1234", "reason": "takes too long"}, (), {}, None, "")
PROPOSAL = "cancel order 1234, reason takes too long. shall i go ahead?"


def test_a_refused_proposal_gets_its_reason_when_asked_and_a_yes_the_next_time() -> None:
    injections = builtin("retail").language.injections
    user, _ = opened(CANCEL, {"refuse_once": 1})
    text, end, tags = user.answer(PROPOSAL)
    assert text in injections["refuse_once"] and end is None and not user.consented and tags == ("inject:refuse_once",)
    assert user.answer("oh. could you explain?")[0] in injections["refuse_reason"]
    assert user.answer(PROPOSAL)[0] in builtin("retail").language.phrases["agree"]


@pytest.mark.parametrize("reply", ["sorry, i cannot find that customer.", "please tell me your customer id.", "hm?"])
def test_a_mistyped_number_is_corrected_when_it_is_not_found_asked_again_or_not_understood(reply: str) -> None:
    user, _ = opened(CANCEL, {"wrong_then_correct": 1})
    text, _, tags = user.answer("please tell me your customer id.")
    assert tags == ("inject:wrong_then_correct",) and re.findall(r"\d+", text)[0] in mistyped("4282")
    text, end, tags = user.answer(reply)
    assert said("4282", text) and end is None and tags == ()


def test_a_proposal_with_the_mistyped_number_gets_no_consent() -> None:
    user, _ = opened(CANCEL, {"wrong_then_correct": 1}, seed=1)
    text, _, _ = user.answer("please tell me the order id.")
    typo = re.findall(r"\d+", text)[0]
    assert typo in mistyped("1234")
    text, _, _ = user.answer(PROPOSAL.replace("1234", typo))
    assert not user.consented and said("1234", text)


def test_an_ambiguous_answer_holds_no_value_and_the_next_one_does() -> None:
    user, _ = opened(CANCEL, {"ambiguity": 1})
    text, _, tags = user.answer("please tell me the order id.")
    assert tags == ("inject:ambiguity",) and not said("1234", text) and "12" in text
    assert said("1234", user.answer("please tell me the order id.")[0])


def test_an_impatient_user_leaves_earlier_but_never_with_a_consented_write_pending() -> None:
    def turns(rates: Mapping[str, float]) -> int:
        user, _ = opened(CANCEL, rates)
        count = 1
        while user.answer("hm")[1] is None:
            count += 1
        return count

    assert turns({"impatience": 1}) < turns({"tangent": 1})
    user, _ = opened(CANCEL, {"impatience": 1})
    user.answer("one moment, i apologise.")
    user.answer(PROPOSAL)
    assert user.consented
    assert all(user.answer("one moment, i apologise.")[1] is None for _ in range(30))


def test_a_refusal_after_an_aside_is_taken_for_the_aside_and_the_next_one_for_the_request() -> None:
    user, _ = opened(CANCEL, {"unavailable_service": 1})
    assert user.answer("please tell me the order id.")[2] == ("inject:unavailable_service",)
    text, end, _ = user.answer("sorry, i cannot do that.")
    assert (
        end is None and user.at == 0 and any(line in text for line in builtin("retail").language.intents["cancel"].open)
    )
    assert user.answer("sorry, order 1234 can not be cancelled.")[1] is EndReason.USER_STOP


@pytest.mark.parametrize("reply", ["please tell me the order id.", "hm", PROPOSAL, "one moment."])
def test_an_opening_in_parts_adds_up_to_the_opening(reply: str) -> None:
    for seed in range(30):
        goal = Goal("cancel", CANCEL.slots, ("order_id",), {}, None, "")
        whole = opened(goal, {"tangent": 1}, seed)[1]
        user, said_so_far = opened(goal, {"fragments": 1}, seed)
        assert isinstance(user, InjectedUser)
        while user._rest:
            said_so_far += " " + user.answer(reply)[0]
        assert said_so_far == " ".join(whole.split()) and not user.consented


@each_scenario
def test_no_injected_line_holds_a_value_or_a_yes(name: str) -> None:
    domain = builtin(name)
    values = Vocabulary.of(domain.language, domain, "dev")
    every: Callable[[str], bool] = re.compile(r"\b(yes|correct|go ahead|sure|ok|please do|\d+)\b", re.I).search  # type: ignore[assignment]
    for options in domain.language.injections.values():
        for line in options:
            assert not every(line), line
            assert not values.values_in(line), line


# --- settings ------------------------------------------------------------------------------------------------------


def test_settings_and_code_know_the_same_injectors() -> None:
    assert tuple(injector.value for injector in Injector) == INJECTORS
    settings = resolve(StageName.ROLLOUT, overrides=["user.injectors=tangent=0.05,fragments"], environ={}).settings
    assert settings.user.injectors == {"tangent": 0.05, "fragments": 1.0}  # type: ignore[attr-defined]
    settings = resolve(StageName.ROLLOUT, overrides=["user.injectors={tangent: 0.1}"], environ={}).settings
    assert settings.user.injectors == {"tangent": 0.1}  # type: ignore[attr-defined]
    for bad in ("tagent=0.1", "tangent=2", "tangent=x"):
        with pytest.raises(MuarlError):
            resolve(StageName.ROLLOUT, overrides=[f"user.injectors={bad}"], environ={})


def test_unknown_names_bad_rates_and_a_domain_without_words_are_refused() -> None:
    from dataclasses import replace

    language = builtin("retail").language
    for rates in ({"tagent": 0.1}, {"tangent": 1.5}, {"tangent": -0.1}):
        with pytest.raises(MuarlError):
            rates_from(rates, language)
    with pytest.raises(MuarlError, match="no words"):
        rates_from({"tangent": 0.1}, replace(language, injections={}))
    assert rates_from({"fragments": 0.5, "tangent": 0.0}, language) == {Injector.FRAGMENTS: 0.5}


@each_scenario
async def test_what_fired_is_in_the_events_and_a_silent_agent_makes_nothing_fire(name: str) -> None:
    domain = builtin(name)
    task = domain.tasks("dev")[0]
    rates = {k: 1.0 for k in EVERYTHING if k not in ("fragments", "wrong_then_correct", "impatience")}
    user = AgendaUsers(domain.language, rates).open(stage_of(domain, 0), task)
    talk = await hold(AgentOf(AgentTurn("")), user, domain.world(task), LIMITS, domain.greeting)
    assert fired(talk) == Counter() and talk.end.reason is EndReason.USER_STOP
