"""Queries that a model writes: tried on the tools, different from each other, refused with a reason, kept on disk."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import FakeOpenAI, GoldBrain, Running

from muarl_cli.cli.app import main
from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.goals import goals_of

LIBRARY = builtin("library")


class Roles(GoldBrain):
    """One server that writes queries ("fake-teacher" without tools), plays the agent (with tools) and the user."""

    models = ("fake-teacher", "fake-user")

    def __init__(self, spoil: float = 0.0) -> None:
        super().__init__([])
        self.spoil, self.asked = spoil, 0
        plain = [t for t in LIBRARY.tasks("train") if not any(g.change or g.unknown for g in goals_of(t.brief))]
        self._served = iter([t for t in plain if t.writes and not any(g.refused for g in goals_of(t.brief))])
        self._refused = iter([t for t in plain if not t.writes])

    def message(self, body: Any) -> dict[str, Any]:
        if body["model"] == "fake-user":
            return self._user(body)
        if body.get("tools"):
            return self._agent(body)
        return {"content": self._query(body["messages"][0]["content"], body["seed"])}

    def _query(self, prompt: str, seed: int) -> str:
        self.asked += 1
        task = next(self._refused if "against the policy: the calls only" in prompt else self._served)
        rng = random.Random(f"query {seed}")
        goals = goals_of(task.brief)
        wishes = [LIBRARY.language.fill(LIBRARY.language.intents[g.intent].propose, g.final) for g in goals]
        words = (
            f"Somebody at the desk ({task.id[-4:].translate(str.maketrans('0123456789', 'abcdefghij'))}) wants: "
            + "; then ".join(wishes)
        )
        calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in task.gold]
        self._by_opening[words] = (task, LIBRARY)
        self._by_prompt[words] = words
        row: dict[str, Any] = {"instruction": words, "persona": "in a hurry", "calls": calls}
        if rng.random() < self.spoil:
            return rng.choice(
                [
                    "I would rather not.",
                    json.dumps(row | {"calls": []}),
                    json.dumps(row | {"calls": [{"name": "get_member", "arguments": {"member_id": "0000"}}]}),
                    json.dumps(row | {"calls": [{"name": "get_nothing", "arguments": {}}]}),
                ]
            )
        return json.dumps(row)


def _synth(url: str, out: Path, *words: str) -> int:
    parties = ["--teacher-model", "fake-teacher", "--teacher-base-url", url]
    parties += ["--user-model", "fake-user", "--user-base-url", url, "--queries", "written", "--accept", "outcome"]
    return main(["synth-coldstart", "--scenarios", "library", *parties, "--out", str(out), *words])


def test_written_queries_are_tried_played_and_verified_and_a_second_run_writes_none(tmp_path: Path) -> None:
    brain = Roles(spoil=0.4)
    out = tmp_path / "run"
    with Running(FakeOpenAI(brain, keep_requests=False)) as url:
        assert _synth(url, out, "--count", "8") == 0
        asked = brain.asked
        assert _synth(url, out, "--count", "8") == 0
    assert brain.asked == asked
    rows = [json.loads(line) for line in (out / "queries.jsonl").read_text().splitlines()]
    refused = [json.loads(line) for line in (out / "refused_queries.jsonl").read_text().splitlines()]
    assert len(rows) == 10 and len(rows) + len(refused) == asked
    assert len({row["instruction"] for row in rows}) == 10 and all(row["persona"] for row in rows)
    assert all(row["why"] and "reply" in row for row in refused)
    assert len(Counter(row["twist"] for row in rows)) >= 2
    verdicts = read_verdicts(out)
    assert sum(row["accepted"] for row in verdicts.values()) == 8
    assert main(["verify", str(out)]) == 0
    first = next(iter(iter_episodes(out)))
    assert first.scenario.endswith("queries.jsonl:library") and first.user["backend"] == "llm"
    card = json.loads((out / "card.json").read_text())
    (scenario,) = card["scenarios"].values()
    assert scenario["accepted"] == 8 and scenario["tools"] >= 3


def test_a_writer_of_which_nothing_can_be_used_is_an_error_that_names_the_replies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Running(FakeOpenAI(Roles(spoil=1.0), keep_requests=False)) as url:
        assert _synth(url, tmp_path / "run", "--count", "2") == 65
    assert "refused_queries.jsonl" in capsys.readouterr().err
    refused = (tmp_path / "run" / "refused_queries.jsonl").read_text().splitlines()
    whys = {json.loads(line)["why"][:24] for line in refused}
    assert len(whys) >= 3


def test_written_queries_need_a_writer_and_a_user_that_can_play_them(tmp_path: Path) -> None:
    assert main(["synth-coldstart", "--queries", "written", "--out", str(tmp_path / "run")]) == 78


CLINIC = """
name: clinic
policy: You book appointments at a clinic for the people who ask, and you do what they want within the rules.
greeting: good day, this is the clinic.
tools:
  - name: get_slot
    description: whether a slot is free
    parameters: {type: object, properties: {slot_id: {type: string}}, required: [slot_id]}
  - name: book_slot
    description: book a free slot
    class: write
    parameters: {type: object, properties: {slot_id: {type: string}, name: {type: string}}, required: [slot_id, name]}
schema:
  type: object
  properties:
    slots:
      type: object
      additionalProperties:
        {type: object, properties: {free: {type: boolean}, name: {type: string}}, required: [free]}
database:
  slots: {S41: {free: true}, S42: {free: false, name: rosa}}
tasks:
  - id: book
    instruction: Rosa would like to have slot S41.
    gold: [{name: get_slot, arguments: {slot_id: S41}}, {name: book_slot, arguments: {slot_id: S41, name: rosa}}]
  - id: open
    instruction: Paul would like to have a talk with the doctor about slot S42.
"""


class Clinic:
    """Plays the tools of the clinic from the database in its prompt."""

    models = ("fake-tools",)

    def message(self, body: Any) -> dict[str, Any]:
        prompt = body["messages"][0]["content"]
        database = json.loads(prompt.split("<database>")[1].split("</database>")[0])
        call = json.loads(body["messages"][-1]["content"])
        slot = call["arguments"]["slot_id"]
        if call["tool"] == "get_slot":
            return {"content": json.dumps({"answer": database["slots"][slot]})}
        record = {"free": False, "name": call["arguments"]["name"]}
        return {
            "content": json.dumps({"answer": "booked", "changes": [{"table": "slots", "id": slot, "record": record}]})
        }


def test_a_scenario_without_executable_tools_is_played_by_models_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clinic.yaml").write_text(CLINIC)
    words = ["synth-coldstart", "--scenarios", "clinic.yaml", "--agent", "gold-replay", "--count", "1", "--out", "run"]
    assert main([*words, "max_attempts=2"]) == 65, "its tools cannot be executed"
    fake = FakeOpenAI(Clinic())
    with Running(fake) as url:
        tools = ["--tools", "simulated", "--tool-model", "fake-tools", "--tool-base-url", url]
        assert main([*words[:-1], "played", *tools, "max_attempts=2"]) == 0
    verdicts = read_verdicts(Path("played"))
    episodes = {e.episode_id: e for e in iter_episodes(Path("played"))}
    book = next(e for e in episodes.values() if e.task_id == "book")
    other = next((e for e in episodes.values() if e.task_id == "open"), None)
    assert verdicts[book.episode_id]["accepted"] and book.reward == 1
    written = [w for e in book.events if e.call for w in e.call.writes]
    assert [(w.entity, w.id) for w in written] == [("slot", "S41")]
    if other is not None:
        assert verdicts[other.episode_id]["codes"] == ["judges/needed"], "no gold state, and nobody to judge"
    assert main(["verify", "played"]) == 0
