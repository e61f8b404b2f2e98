"""A served model words the turns of a user whose state is code's: whatever it says, the state decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.brains import Says
from fakes.openai_server import FakeOpenAI, Running
from fakes.wording import Plants, Rewords, plan_of

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.protocols import Stage, UserTurn
from muarl_cli.engines.address import resolve_address
from muarl_cli.engines.chat import ChatModel
from muarl_cli.engines.wire import RetryPolicy, Wire
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.users.cassette import Cassette, NoSpeaker
from muarl_cli.users.llm import LlmUsers
from muarl_cli.users.messages import END_TOKENS
from muarl_cli.users.persona import Persona
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import said
from muarl_cli.worlds.scenario import Task

LIMITS = Limits(max_turns=60, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=60.0)
RETAIL = builtin("retail")


@asynccontextmanager
async def served(brain: Any, script: Sequence[str] = ()) -> AsyncIterator[tuple[ChatModel, FakeOpenAI]]:
    fake = FakeOpenAI(brain, script=list(script))
    with Running(fake) as url:
        async with Wire(resolve_address(url, {}), retry=RetryPolicy(attempts=2, base_seconds=0.001)) as wire:
            yield ChatModel(wire, "m"), fake


def worded(chat: Any, domain: Domain = RETAIL, **more: Any) -> LlmUsers:
    options = {"temperature": 0.0, "max_tokens": 100, "agenda": AgendaUsers(domain.language).open, **more}
    return LlmUsers(chat, domain.user_prompt, **options)


async def talk(users: Any, task: Task, seed: int = 3, manner: Manner = Manner.CAREFUL, domain: Domain = RETAIL) -> Any:
    stage = Stage(domain.name, domain.policy, domain.compact, domain.tools, domain.greeting, seed)
    world = domain.world(task)
    agent, user = ScriptedAgents(domain.language, manner).open(stage, task), users.open(stage, task)
    transcript = await converse(agent, user, world, greeting=domain.greeting, limits=LIMITS)
    user.close()
    return transcript, domain.outcome(task, world, transcript.events).reward


def tags(transcript: Transcript) -> list[str]:
    return [tag for event in transcript.events for tag in event.tags if tag.startswith("fidelity:")]


def words_of(transcript: Transcript) -> list[str]:
    return [e.text for e in transcript.events if e.actor is Actor.USER]


def shown(transcript: Transcript) -> str:
    return "\n".join(f"{e.actor} {e.kind} {e.text} {e.call} {e.tags}" for e in transcript.events)


def write_task(changing: bool = False) -> Task:
    return next(t for t in RETAIL.tasks("dev") if t.writes and any(g.change for g in goals_of(t.brief)) is changing)


@pytest.mark.parametrize("name", BUILTIN)
async def test_a_faithful_model_gives_the_scripted_users_outcome_in_other_words(name: str) -> None:
    domain = builtin(name)
    differ = 0
    async with served(Rewords()) as (chat, _):
        for seed, task in enumerate(domain.tasks("dev")[:12]):
            scripted, reward = await talk(AgendaUsers(domain.language), task, seed, domain=domain)
            reworded, same = await talk(worded(chat, domain), task, seed, domain=domain)
            assert (reward, scripted.end) == (same, reworded.end)
            assert tags(reworded) == []
            differ += words_of(scripted) != words_of(reworded)
    assert differ > 6


async def test_the_prompt_of_a_turn_holds_no_fact_that_is_not_to_be_told_in_it() -> None:
    task = write_task()
    async with served(Rewords()) as (chat, fake):
        transcript, _ = await talk(worded(chat), task)
    values = [value for goal in goals_of(task.brief) for value in goal.final.values()]
    for request in fake.requests:
        messages = request["body"]["messages"]
        plan, past = plan_of(request["body"]), " ".join(m["content"] for m in messages[1:])
        for value in values:
            if not said(value, plan) and not said(value, past):
                assert not said(value, messages[0]["content"])
    assert transcript.end.reason is EndReason.USER_STOP


FAULTS: dict[str, Callable[[str], str]] = {
    "role_flip": lambda plan: f"How can I help you today? {plan}",
    "copied_instruction": lambda plan: f"My instructions say: {plan}",
    "invented_value": lambda plan: f"{plan} my other order is 987654.",
    "missing_fact": lambda plan: "something else is wrong here.",
    "early_stop": lambda plan: f"{plan} goodbye!",
    "empty": lambda plan: "",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_planted_fault_is_retried_with_another_prompt_and_temperature_and_never_said(fault: str) -> None:
    task = write_task()
    async with served(Plants(FAULTS[fault], at=1)) as (chat, fake):
        transcript, reward = await talk(worded(chat), task)
    assert tags(transcript) == [f"fidelity:{fault}"] and reward == 1
    first, again = fake.requests[1]["body"], fake.requests[2]["body"]
    assert first["temperature"] != again["temperature"] and first["messages"][0] != again["messages"][0]
    assert first["messages"][1:] == again["messages"][1:] and first["seed"] != again["seed"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_model_that_stays_wrong_is_replaced_by_the_script_for_that_turn(fault: str) -> None:
    task = write_task()
    tries = 3 if fault == "empty" else 2
    async with served(Plants(FAULTS[fault], at=1, tries=tries)) as (chat, fake):
        transcript, reward = await talk(worded(chat), task)
    assert tags(transcript) == [f"fidelity:{fault}", "fidelity:fallback"] and reward == 1
    assert plan_of(fake.requests[1]["body"]) in words_of(transcript)


async def test_a_false_consent_and_an_unconsented_change_never_reach_the_agent() -> None:
    """The model says yes where the agenda changes its mind: it must not get through, or the old value is written."""
    task = write_task(changing=True)
    async with served(Rewords()) as (chat, _):
        plain, reward = await talk(worded(chat), task)
        at = next(i for i, turn in enumerate(e for e in plain.events if e.actor is Actor.USER) if turn.tags)
    async with served(Plants(lambda plan: f"Yes, go ahead! {plan}", at=at, tries=2)) as (chat, _):
        transcript, same = await talk(worded(chat), task)
    assert "fidelity:false_consent" in tags(transcript) and reward == same == 1


async def test_without_a_fallback_a_model_that_stays_wrong_is_the_users_fault_and_no_failure() -> None:
    task = write_task()
    async with served(Plants(FAULTS["invented_value"], at=1, tries=9)) as (chat, _):
        transcript, _ = await talk(worded(chat, scripted_fallback=False), task)
    assert transcript.end.reason is EndReason.USER_FAULT and "invented_value" in transcript.end.detail


@pytest.mark.parametrize("token", END_TOKENS)
async def test_an_end_token_of_the_model_changes_nothing_where_the_agenda_goes_on(token: str) -> None:
    task = write_task()
    async with served(Rewords()) as (chat, _):
        plain, _ = await talk(worded(chat), task)
    turns = len(words_of(plain))
    async with served(Plants(lambda plan: f"{plan} {token}", at=0, tries=turns)) as (chat, _):
        transcript, reward = await talk(worded(chat), task)
    assert reward == 1 and transcript.end.reason is EndReason.USER_STOP and len(words_of(transcript)) == turns
    assert not any("###" in words for words in words_of(transcript))
    assert "fidelity:stop_pending" in tags(transcript) and "fidelity:early_stop" in tags(transcript)


async def test_a_persona_is_in_the_prompt_and_in_the_log() -> None:
    persona = Persona("verbosity=terse", "Use at most eight words a message.")
    async with served(Rewords()) as (chat, fake):
        users = worded(chat, persona=persona)
        await talk(users, write_task())
    assert users.info["persona"] == "verbosity=terse"
    assert all(persona.directions in r["body"]["messages"][0]["content"] for r in fake.requests)


# --- scenarios without goals: the model plays, code holds the consent ------------------------------------------------

STAGE = Stage("s", "policy", "s", (), "Hi!", seed=3)
PROPOSAL = "I will cancel order #W2378156. Shall I go ahead?"
BRIEF = "You want order #W2378156 cancelled."


def _say(text: str) -> Event:
    return Event(0, Actor.AGENT, Kind.SAY, text)


def _wrote(ok: bool = True) -> Event:
    return Event(0, Actor.WORLD, Kind.RESULT, "{}", CallRecord("c", "cancel", None, ToolClass.WRITE, ok))


async def _free(replies: Sequence[str], news: Sequence[Sequence[Event]], **more: Any) -> list[UserTurn]:
    async with served(Says(*replies)) as (chat, _):
        user = LlmUsers(chat, lambda task: BRIEF, temperature=0.0, max_tokens=50, **more).open(STAGE, "t")
        return [await user.respond(events) for events in news]


async def test_no_stop_in_the_same_breath_as_a_yes() -> None:
    (turn,) = await _free(["Yes, please. ###STOP###"], [[_say(PROPOSAL)]])
    assert (turn.text, turn.end, turn.tags) == ("Yes, please.", None, ("fidelity:stop_pending",))


async def test_without_the_gate_a_model_is_taken_at_its_word() -> None:
    said = "How can I help you? ###STOP###"
    (turn,) = await _free([said], [[_say(PROPOSAL)]], gated=False)
    assert (turn.text, turn.end, turn.tags) == ("How can I help you?", EndReason.USER_STOP, ())


async def test_no_stop_while_the_consented_write_is_pending_but_once_it_was_made_or_refused() -> None:
    waiting = [[_say(PROPOSAL)], [_say("One moment, I am processing it.")]]
    turns = await _free(["Yes, go ahead.", "Thanks! ###STOP###"], waiting)
    assert turns[1].end is None and turns[1].tags == ("fidelity:stop_pending",)
    for news in ([_wrote(), _say("Let me see.")], [_say("I am sorry, that is not possible.")], [_say("It is done.")]):
        turns = await _free(["Yes, go ahead.", "Thanks! ###STOP###"], [[_say(PROPOSAL)], news])
        assert turns[1].end is EndReason.USER_STOP


async def test_a_consent_that_leads_nowhere_does_not_hold_the_user_for_ever() -> None:
    news = [[_say(PROPOSAL)], *([_say("I am looking into it.")] for _ in range(3))]
    turns = await _free(["Yes, go ahead.", "Hm. ###STOP###"], news)
    assert [turn.end for turn in turns] == [None, None, None, EndReason.USER_STOP][: len(turns)]


async def test_a_lone_stop_while_a_write_is_pending_is_asked_for_again_in_words() -> None:
    turns = await _free(
        ["Yes, go ahead.", "###STOP###", "I will wait."], [[_say(PROPOSAL)], [_say("One moment please.")]]
    )
    assert (turns[1].text, turns[1].end) == ("I will wait.", None)


# --- cassettes -------------------------------------------------------------------------------------------------------


async def _recorded(path: Path, tasks: Sequence[Task], brain: Any = None) -> list[str]:
    tape = Cassette(path, recording=True)
    async with served(brain or Plants(FAULTS["role_flip"], at=2)) as (chat, _):
        return [shown((await talk(worded(chat, cassette=tape), task, seed))[0]) for seed, task in enumerate(tasks)]


async def _replayed(path: Path, tasks: Sequence[Task], **more: Any) -> list[tuple[str, Transcript]]:
    tape = Cassette(path, recording=False)
    users = worded(NoSpeaker(tape), cassette=tape, backend="replay", **more)
    assert users.info["model"] == "m" and users.info["backend"] == "replay"
    played = [(await talk(users, task, seed))[0] for seed, task in enumerate(tasks)]
    return [(shown(transcript), transcript) for transcript in played]


async def test_a_cassette_replays_to_the_byte_with_no_server_retries_included(tmp_path: Path) -> None:
    tasks = RETAIL.tasks("dev")[:8]
    before = await _recorded(tmp_path / "tape", tasks)
    assert [text for text, _ in await _replayed(tmp_path / "tape", tasks)] == before
    assert any("fidelity:role_flip" in text for text in before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.7}, "the sampling changed"),
        ({"persona": Persona("style=formal", "Write full sentences.")}, "the system prompt changed"),
    ],
)
async def test_a_changed_request_is_a_miss_that_says_what_changed(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    tasks = RETAIL.tasks("dev")[:1]
    await _recorded(tmp_path / "tape", tasks)
    ((_, transcript),) = await _replayed(tmp_path / "tape", tasks, **change)
    assert transcript.end.reason is EndReason.USER_FAULT
    assert "cassette miss" in transcript.end.detail and words in transcript.end.detail


async def test_another_task_or_rollout_is_a_miss_that_names_it(tmp_path: Path) -> None:
    tasks = RETAIL.tasks("dev")[:2]
    await _recorded(tmp_path / "tape", tasks[:1])
    _, (_, transcript) = await _replayed(tmp_path / "tape", tasks)
    assert transcript.end.reason is EndReason.USER_FAULT and tasks[1].task_hash[:12] in transcript.end.detail


async def test_what_is_recorded_is_not_asked_for_again_by_the_same_model(tmp_path: Path) -> None:
    tasks, brain = RETAIL.tasks("dev")[:3], Rewords()
    first = await _recorded(tmp_path / "tape", tasks, brain)
    asked = brain.served
    assert await _recorded(tmp_path / "tape", tasks, brain) == first and brain.served == asked
    tape = Cassette(tmp_path / "tape", recording=True)
    async with served(brain) as (chat, _):
        other = ChatModel(chat.wire, "other")
        await talk(worded(other, cassette=tape), tasks[0], 0)
    assert brain.served > asked, "another model must be asked itself"


async def test_a_torn_record_is_skipped_and_owed_again(tmp_path: Path) -> None:
    tasks, path = RETAIL.tasks("dev")[:2], tmp_path / "tape"
    first = await _recorded(path, tasks, Rewords())
    whole = path.read_bytes()
    path.write_bytes(whole[:-25])
    brain = Rewords()
    assert await _recorded(path, tasks, brain) == first and brain.served == 1
    assert [text for text, _ in await _replayed(path, tasks)] == first
