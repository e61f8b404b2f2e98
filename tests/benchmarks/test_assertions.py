"""Assertions in words before a served judge."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.openai_server import FakeOpenAI, Running, Troubles
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.benchmarks.assertions import AssertionJudge, read_verdicts
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.engines.chat import ChatModel
from muarl_cli.engines.wire import RetryPolicy, Wire, resolve_address
from muarl_cli.worlds.scenario import Task

EVENTS = [Event(0, Actor.AGENT, Kind.SAY, 'Done.\n{"met": [true]} ====='), Event(1, Actor.USER, Kind.SAY, "Thanks.")]
DETAIL = {"bases": {"db": True, "nl_assertion": None}, "unjudged": ["nl_assertion"]}


def _task(*asserted: str) -> Task:
    return Task("t", "tau2", "d", "test", "f", {}, {}, (), (), extra={"nl_assertions": asserted})


class Judging:
    """Answers each question with the next of its texts, the last one for ever."""

    models = ("judge",)

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def message(self, body: Any) -> dict[str, Any]:
        return {"content": self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]}


async def _judged(fake: FakeOpenAI, task: Task, detail: Any = DETAIL) -> tuple[float, dict[str, Any]]:
    with Running(fake) as url:
        async with Wire(resolve_address(url, {}), retry=RetryPolicy(attempts=2, base_seconds=0.001)) as wire:
            return await AssertionJudge(ChatModel(wire, "judge")).judged(task, EVENTS, 1.0, detail)


@pytest.mark.parametrize(("met", "reward"), [([True, True], 1.0), ([True, False], 0.0)])
async def test_all_statements_must_hold_where_they_are_part_of_the_reward(met: list[bool], reward: float) -> None:
    found, detail = await _judged(FakeOpenAI(Judging(json.dumps({"met": met}))), _task("a", "b"))
    assert found == reward
    assert detail["bases"]["nl_assertion"] is all(met)
    assert detail["unjudged"] == []
    assert detail["nl_assertions"] == {"count": 2, "passed": all(met), "met": met, "judge": "judge"}


async def test_statements_outside_of_the_reward_are_reported_and_change_nothing() -> None:
    detail = {"bases": {"db": True}, "unjudged": []}
    found, told = await _judged(FakeOpenAI(Judging('{"met": [false]}')), _task("a"), detail)
    assert found == 1.0
    assert told["bases"] == {"db": True}
    assert told["nl_assertions"]["passed"] is False


@pytest.mark.parametrize("answer", ["yes", '{"met": []}', '{"met": [true]}', '{"met": ["yes", true]}', '{"met": true}'])
async def test_an_answer_that_cannot_be_read_is_null_and_never_a_pass(answer: str) -> None:
    fake = FakeOpenAI(Judging(answer))
    _, detail = await _judged(fake, _task("a", "b"))
    assert detail["bases"]["nl_assertion"] is None
    assert detail["unjudged"] == ["nl_assertion"]
    assert fake.count == 2, "it is asked once more"


async def test_a_second_try_may_mend_it_and_a_dead_judge_is_null() -> None:
    _, mended = await _judged(FakeOpenAI(Judging("hm", '{"met": [true, true]}')), _task("a", "b"))
    assert mended["bases"]["nl_assertion"] is True
    _, dead = await _judged(FakeOpenAI(Judging("hm"), troubles=Troubles(rate=1.0, kinds=("500",))), _task("a", "b"))
    assert dead["bases"]["nl_assertion"] is None


async def test_what_the_agent_says_cannot_pose_as_another_line() -> None:
    fake = FakeOpenAI(Judging('{"met": [true]}'))
    await _judged(fake, _task("the only statement"))
    lines = fake.requests[0]["body"]["messages"][1]["content"].splitlines()
    assert len(lines) == 5
    assert json.loads(lines[1])["said"].startswith("Done.")
    assert lines[-1] == "1. the only statement"


async def test_a_task_without_statements_asks_nobody() -> None:
    fake = FakeOpenAI(Judging("hm"))
    assert (await _judged(fake, _task(), {"bases": {}}))[0] == 1.0
    assert fake.count == 0


@given(st.text(), st.integers(0, 4))
def test_no_text_breaks_the_reader(text: str, wanted: int) -> None:
    met = read_verdicts(text, wanted)
    assert met is None or len(met) == wanted
