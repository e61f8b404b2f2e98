"""What every built-in scenario must be, whatever its domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from fakes.goal_words import values_said, words_around
from fakes.talks import LIMITS, play, stage_of
from scoring.judged_talks import talk

from muarl_cli.agents.floors import DoNothing, TransferOnly
from muarl_cli.agents.scripted import Manner
from muarl_cli.conversation.events import Kind, ToolClass
from muarl_cli.conversation.loop import converse
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.scoring.layers import judge
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import said
from muarl_cli.worlds.scenario import GoldCall, Task

SPLITS = ("test", "dev", "train")
each_scenario = pytest.mark.parametrize("name", BUILTIN)
DECIDING = [
    name for name in BUILTIN if any(map(builtin(name).language.rivals, builtin(name).language.intents.values()))
]
"""scenarios in which the policy decides between writes"""
FORBIDDING = [name for name in BUILTIN if any(rule["kind"] == "forbidden" for rule in builtin(name).rules)]


@cache
def every_task(name: str) -> tuple[Task, ...]:
    return tuple(task for split in SPLITS for task in builtin(name).tasks(split))


@each_scenario
def test_it_has_12_to_20_tools_with_a_nested_object_and_all_classes(name: str) -> None:
    tools = builtin(name).tools
    assert 12 <= len(tools) <= 20
    assert {t.klass for t in tools} == set(ToolClass)
    assert all(t.description and t.parameters["additionalProperties"] is False for t in tools)
    kinds = [p.get("type", "oneOf" if "oneOf" in p else "") for t in tools for p in t.parameters["properties"].values()]
    assert "object" in kinds or "oneOf" in kinds


@each_scenario
def test_its_state_holds_hundreds_of_entities_and_is_the_same_every_time(name: str) -> None:
    domain = builtin(name)
    assert sum(len(records) for records in domain._tables.values()) >= 300
    again = domain._module.state(1)
    assert again == domain._tables
    assert domain._module.state(2) != again


@each_scenario
def test_at_least_500_tasks_and_40_percent_need_two_writes(name: str) -> None:
    tasks = every_task(name)
    assert len(tasks) >= 500
    for split in SPLITS:
        own = [t for t in tasks if t.split == split]
        assert sum(len(t.gold_writes) >= 2 for t in own) >= 0.4 * len(own)


@each_scenario
def test_12_intents_or_more_and_no_family_over_15_percent(name: str) -> None:
    tasks = every_task(name)
    intents = Counter(goal.intent for task in tasks for goal in goals_of(task.brief))
    assert len(intents) >= 12
    assert set(intents) == set(builtin(name).language.intents), "every intent occurs"
    assert max(intents.values()) <= 0.15 * sum(intents.values())
    assert max(Counter(t.family for t in tasks).values()) <= 0.15 * len(tasks)


@each_scenario
def test_families_are_distinct_after_masking_values(name: str) -> None:
    """Two intents never look the same once their values are gone: another write, or other slots, or other words.

    Intents may open with the same words only where they need the same slots and stand behind the same read: it is then
    what the read says, and the policy, that decides between them.
    """
    language = builtin(name).language
    masked = {
        intent.name: (intent.open, intent.propose, intent.done, intent.slots, tuple(intent.write_arguments))
        for intent in language.intents.values()
    }
    assert len(set(masked.values())) == len(masked)
    alike: dict[tuple[str, ...], set[tuple[object, ...]]] = {}
    for intent in language.intents.values():
        alike.setdefault(intent.open, set()).add((intent.slots, intent.read, intent.read_arguments))
    openings = [words for options in alike for words in options]
    assert len(set(openings)) == len(openings)
    assert all(len(needs) == 1 for needs in alike.values())


@each_scenario
def test_splits_share_no_task_and_no_gold_write(name: str) -> None:
    tasks = every_task(name)
    assert len({t.task_hash for t in tasks}) == len(tasks)
    writes = [t.gold_write_hash for t in tasks if t.gold_write_hash]
    assert len(set(writes)) == len(writes)
    assert len({t.id for t in tasks}) == len(tasks)


@each_scenario
def test_tasks_do_not_depend_on_which_split_is_asked_for_first(name: str) -> None:
    fresh = Domain(name, _data(name), builtin(name).policy, builtin(name)._module)
    assert [t.task_hash for t in fresh.tasks("train")] == [t.task_hash for t in builtin(name).tasks("train")]
    assert [t.task_hash for t in fresh.tasks("test")] == [t.task_hash for t in builtin(name).tasks("test")]


def _data(name: str) -> dict[str, object]:
    from importlib import resources

    import yaml

    return yaml.safe_load((resources.files("muarl_cli.worlds.builtin") / name / "domain.yaml").read_text("utf-8"))


@each_scenario
def test_every_gold_call_is_well_formed_and_succeeds_on_a_fresh_world(name: str) -> None:
    domain = builtin(name)
    box = Toolbox(domain.tools)
    for task in every_task(name):
        world = domain.world(task)
        for call in task.gold:
            problem = box.problem(ToolCall("c", call.name, call.arguments))
            assert not problem, (task.id, problem)
            result = world.run(call.name, call.arguments)
            assert result.ok, (task.id, call, result.text)
            assert bool(result.writes) == (box[call.name].klass is ToolClass.WRITE)
        assert world.fingerprint() == domain.gold_fingerprint(task)


@each_scenario
def test_the_gold_state_differs_from_the_initial_one_exactly_where_the_task_writes(name: str) -> None:
    domain = builtin(name)
    for task in every_task(name):
        changed = domain.gold_fingerprint(task) != domain.world(task).fingerprint()
        assert changed == task.writes == bool(task.gold_writes), task.id


@each_scenario
def test_every_refused_goal_is_refused_by_the_tool_itself(name: str) -> None:
    domain = builtin(name)
    seen = 0
    for task in every_task(name):
        for goal in goals_of(task.brief):
            if goal.refused:
                intent = domain.language.intents[goal.intent]
                result = domain.world(task).run(intent.write, domain.language.write_call(intent, goal.slots))
                assert not result.ok, (task.id, goal)
                seen += 1
    assert seen >= 0.1 * len(every_task(name))


@pytest.mark.parametrize("name", DECIDING)
def test_among_intents_that_open_alike_only_one_is_right(name: str) -> None:
    """Whoever carries out another one than the policy says is refused by the tool or ends in another state."""
    tried = list(rivals_carried_out(builtin(name), "dev"))
    assert len(tried) >= 20
    assert not [(task.id, rival) for task, rival, right in tried if right]


def rivals_carried_out(domain: Domain, split: str) -> Iterator[tuple[Task, str, bool]]:
    """For each goal whose words open another intent too: the task, that other intent, and whether the gold calls with
    its write in place of the right one all go through and end in the gold state."""
    for task in domain.tasks(split):
        for goal in goals_of(task.brief):
            intent = domain.language.intents[goal.intent]
            right = GoldCall(intent.write, domain.language.write_call(intent, goal.final))
            for rival in () if goal.refused else domain.language.rivals(intent):
                wrong = GoldCall(rival.write, domain.language.write_call(rival, goal.final))
                world = domain.world(task)
                assert right in task.gold
                calls = [wrong if call == right else call for call in task.gold]
                through = all(world.run(call.name, call.arguments).ok for call in calls)
                yield task, rival.name, through and world.fingerprint() == domain.gold_fingerprint(task)


@pytest.mark.parametrize("name", FORBIDDING)
def test_using_a_forbidden_tool_is_found(name: str) -> None:
    domain = builtin(name)
    rules = [rule for rule in domain.rules if rule["kind"] == "forbidden"]
    task = next(t for t in domain.tasks("dev") if t.writes and all(not g.refused for g in goals_of(t.brief)))
    episode = talk(domain, task, "careful")
    at = max(e.i for e in episode.events if e.kind is Kind.CALL and e.call and e.call.klass is ToolClass.WRITE)
    for rule in rules:
        for tool in rule["tools"]:
            events = [
                replace(e, call=replace(e.call, name=tool)) if e.call and e.i in (at, at + 1) else e
                for e in episode.events
            ]
            assert rule["id"] in judge(replace(episode, events=tuple(events)), domain, task).failed_rules
            assert next(t for t in domain.tools if t.name == tool).klass is ToolClass.WRITE


@each_scenario
def test_a_write_cannot_be_repaired_by_another_of_its_kind(name: str) -> None:
    """What a hasty agent wrote before the user changed their mind is there to stay."""
    domain = builtin(name)
    for task in builtin(name).tasks("test"):
        for goal in goals_of(task.brief):
            intent = domain.language.intents[goal.intent]
            if goal.change is None or goal.change.slot not in intent.changes:
                continue
            world, wanted = domain.world(task), domain.world(task)
            first = world.run(intent.write, domain.language.write_call(intent, goal.slots))
            world.run(intent.write, domain.language.write_call(intent, goal.final))
            wanted.run(intent.write, domain.language.write_call(intent, goal.final))
            assert first.ok and world.fingerprint() != wanted.fingerprint(), (task.id, goal.intent)


@each_scenario
def test_every_value_a_user_does_not_know_can_be_searched_for(name: str) -> None:
    domain = builtin(name)
    unknown = 0
    for task in every_task(name):
        for goal in goals_of(task.brief):
            for slot, hint in goal.unknown.items():
                table = domain.language.slots[slot]
                found = domain.world(task).run(table.search, {n: goal.slots[n] for n in table.search_arguments})
                assert found.ok and said(goal.slots[slot], found.text), task.id
                assert not said(goal.slots[slot], hint)
                unknown += 1
    assert unknown >= 0.03 * len(every_task(name))


@each_scenario
def test_no_value_is_part_of_the_words_around_it(name: str) -> None:
    """Else it would be heard where nobody said it: a coupon HELLO in a greeting."""
    language = builtin(name).language
    last_words = ("leave", "no_thanks")
    shared = [w for name, options in language.phrases.items() if name not in last_words for w in options]
    for task in every_task(name):
        for goal in goals_of(task.brief):
            text = " | ".join([*shared, *words_around(language, goal)])
            values = values_said(language, goal)
            assert not [v for v in values if said(v, text)], task.id
            assert not [(v, w) for v in values for w in values if v != w and said(v, w)], task.id


@each_scenario
def test_changes_of_mind_change_something_and_refusals_have_reasons(name: str) -> None:
    goals = [goal for task in every_task(name) for goal in goals_of(task.brief)]
    assert all(goal.change.value != goal.slots[goal.change.slot] for goal in goals if goal.change)
    assert sum(goal.change is not None for goal in goals) >= 0.25 * len(goals)


@each_scenario
@pytest.mark.parametrize("manner", [Manner.ORACLE, Manner.CAREFUL])
async def test_oracle_and_careful_solve_every_test_and_dev_task(name: str, manner: Manner) -> None:
    domain = builtin(name)
    for split, seeds in (("test", (0, 1, 2)), ("dev", (3,))):
        for task in domain.tasks(split):
            for seed in seeds:
                talk, reward, user = await play(domain, task, manner, seed)
                assert reward == 1.0, (task.id, seed, talk.end)
                assert user.misses == 0
                assert talk.tally.turns < LIMITS.max_turns - 5


@each_scenario
async def test_hasty_scores_at_least_30_points_below_careful(name: str) -> None:
    domain = builtin(name)
    tasks = domain.tasks("test")
    rewards = [(await play(domain, task, Manner.HASTY))[1] for task in tasks]
    assert sum(rewards) / len(tasks) <= 0.7
    changing = [any(g.change for g in goals_of(t.brief)) for t in tasks]
    assert all(r == 0 for r, c in zip(rewards, changing, strict=True) if c), "a change of mind is never survived"
    assert all(r == 1 for r, c in zip(rewards, changing, strict=True) if not c), "and nothing else fails"


@each_scenario
@pytest.mark.parametrize("split", SPLITS)
async def test_doing_nothing_or_handing_over_solves_less_than_10_percent(name: str, split: str) -> None:
    domain = builtin(name)
    tasks = list(domain.tasks(split))[:240]
    for factory in (DoNothing(), TransferOnly()):
        solved = 0.0
        for task in tasks:
            stage = stage_of(domain, 0)
            user, world = AgendaUsers(domain.language).open(stage, task), domain.world(task)
            talk = await converse(factory.open(stage, task), user, world, greeting=domain.greeting, limits=LIMITS)
            solved += domain.outcome(task, world, talk.events).reward if talk.end.reason.graded else 0.0
        assert solved / len(tasks) < 0.1


@each_scenario
def test_an_owner_is_known_for_every_write_to_what_somebody_owns(name: str) -> None:
    """What has no owner is a record that all share: a book, a section."""
    domain = builtin(name)
    owner = domain._module.OWNER
    shared = {
        table.rstrip("s")
        for table, records in domain._tables.items()
        if records and table != owner.replace("_id", "s") and not any(owner in r for r in records.values())
    }
    for task in domain.tasks("test"):
        world = domain.world(task)
        subject = goals_of(task.brief)[0].slots[owner]
        for call in task.gold:
            for write in world.run(call.name, call.arguments).writes:
                assert write.owner in (subject, ""), (task.id, write)
                assert bool(write.owner) == (write.entity not in shared), (task.id, write)


@each_scenario
def test_the_brief_in_words_names_every_fact_the_user_knows_and_none_they_do_not(name: str) -> None:
    domain = builtin(name)
    for task in domain.tasks("test"):
        prompt = domain.user_prompt(task)
        for goal in goals_of(task.brief):
            for slot in domain.language.intents[goal.intent].slots:
                assert said(goal.slots[slot], prompt) == (slot not in goal.unknown), (task.id, slot)


@each_scenario
def test_all_texts_of_a_domain_are_given_to_the_tokenizer(name: str) -> None:
    texts = " ".join(builtin(name).texts())
    assert builtin(name).policy in texts and all(tool.name in texts for tool in builtin(name).tools)
