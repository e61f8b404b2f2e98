"""The gate of a cold start: what is asked, in which order, by whom; judges, people, and the card."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import FakeOpenAI, Running
from scoring.judged_talks import talks

from muarl_cli.benchmarks.provider import Provider, Status
from muarl_cli.cli.app import main
from muarl_cli.pipeline import fingerprints as known_sets
from muarl_cli.pipeline.verification import Gate
from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve
from muarl_cli.verification.card import data_card
from muarl_cli.verification.coverage import by_coverage, needed, pairs_of
from muarl_cli.verification.judges import read_vote
from muarl_cli.verification.overlap import fingerprint
from muarl_cli.worlds.domain import builtin


def synth(out: Path, *words: str) -> int:
    return main(["synth-coldstart", "--scenarios", "retail,library", "--out", str(out), *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cold") / "run"
    assert synth(out, "--count", "60", "--agent", "careful=0.5,hasty=0.5") == 0
    return out


def test_the_default_accepts_no_hasty_demonstration_and_outcome_alone_does(run: Path, tmp_path: Path) -> None:
    verdicts = read_verdicts(run)
    kept = [e for e in iter_episodes(run) if verdicts[e.episode_id]["accepted"]]
    writers = {e.agent["model"] for e in kept if any(ev.call and ev.call.klass == "write" for ev in e.events)}
    assert len(kept) == 60 and writers == {"careful"}
    assert synth(tmp_path / "lax", "--count", "60", "--agent", "careful=0.5,hasty=0.5", "--accept", "outcome") == 0
    lax = read_verdicts(tmp_path / "lax")
    agents = {e.agent["model"] for e in iter_episodes(tmp_path / "lax") if lax[e.episode_id]["accepted"]}
    assert agents == {"careful", "hasty"}


def test_every_rejected_conversation_has_a_reason_and_every_filter_an_answer(run: Path) -> None:
    for row in read_verdicts(run).values():
        assert row["accepted"] != bool(row["reasons"])
        assert row["layers"]["verdicts"].keys() >= {"outcome", "policy"}
        assert set(row["checks"].values()) <= {"pass", "fail", "na"}


def test_the_card_counts_what_the_log_and_the_verdicts_hold(run: Path) -> None:
    card = json.loads((run / "card.json").read_text())
    verdicts = read_verdicts(run)
    assert card["held"] == len(verdicts) and card["accepted"] == 60
    assert sum(row["accepted"] for row in card["scenarios"].values()) == 60
    assert card["filters"]["rules"]["passed"] == sum(row["checks"]["rules"] == "pass" for row in verdicts.values())
    assert card["filters"]["duplicate"]["asked"] < card["filters"]["rules"]["asked"]
    library = card["scenarios"]["builtin:library"]
    assert library["tools"] >= 17 and library["pairs"] >= 0.5 * library["pairs_of"]
    assert 0.3 < library["mind_changes"] < 1 and 0.3 < library["multi_intent"] < 1
    assert card["overlap"]["builtin:library:test"]["same_task"] == 0
    text = (run / "card.md").read_text()
    assert "builtin:library" in text and "rules/confirm_before_write" in text


def test_the_card_finds_demonstrations_that_are_test_tasks(run: Path) -> None:
    library = builtin("library")
    tasks = library.tasks("train")
    known = {"builtin:library": (library, tasks)}
    episodes = [e for e in iter_episodes(run) if e.scenario == "builtin:library"]
    held = {e.task_hash for e in episodes}
    seen = [task for task in tasks if task.task_hash in held][:7]
    benchmark = {"copied": fingerprint(library, [*seen, *library.tasks("test")[:5]])}
    found = data_card(episodes, {e.episode_id: {"accepted": True} for e in episodes}, known, benchmark)["overlap"]
    assert found["copied"]["same_task"] == 7 and found["copied"]["tasks"] == 12
    assert found["copied"]["demonstrations_with_13_gram"] >= 4


def test_a_benchmark_is_read_once_and_named_where_it_was_not(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that holds demonstrated tasks: not compared before somebody asks for it, then in every card; and
    again not compared once it is another version."""
    library, version = builtin("library"), ["1.0"]
    read: list[str] = []

    def sets(source: str, names: Any, splits: Any = ()) -> Any:
        read.append(source)
        name = "copied:library:train" if source == "tau2" else "builtin:library:test"
        yield name, library, library.tasks("train" if source == "tau2" else "test")

    here = Provider("tau2", ("library",), (), lambda: Status((version[0],)), lambda domain: {})
    monkeypatch.setattr(known_sets, "providers", lambda: {"tau2": here})
    monkeypatch.setattr(known_sets, "task_sets", sets)
    monkeypatch.setenv("MUARL_HOME", str(tmp_path / "home"))
    out = tmp_path / "run"

    def card(*words: str) -> dict[str, Any]:
        assert main([*words, "--json"]) == 0
        capfd.readouterr()
        return dict(json.loads((out / "card.json").read_text()))

    first = card("synth-coldstart", "--scenarios", "library", "--count", "5", "--out", str(out))
    assert first["not_compared"] == ["tau2"] and "copied:library:train" not in first["overlap"]
    assert "Not compared: tau2" in (out / "card.md").read_text()
    asked = card("verify", str(out), "--benchmarks")
    assert asked["not_compared"] == [] and asked["overlap"]["copied:library:train"]["same_task"] == 5
    assert "Not compared" not in (out / "card.md").read_text()
    kept, missing = known_sets.fingerprints(False)
    assert missing == () and len(kept["copied:library:train"].tasks) == len(library.tasks("train"))
    assert read.count("tau2") == 1
    version[0] = "1.1"
    assert known_sets.fingerprints(False)[1] == ("tau2",)


def test_tasks_in_order_of_coverage_are_the_same_tasks_and_cover_faster() -> None:
    library = builtin("library")
    tasks = library.tasks("train")[:600]
    ordered = by_coverage(tasks)
    assert sorted(t.id for t in ordered) == sorted(t.id for t in tasks) and ordered != list(tasks)

    def met(some: Any) -> int:
        return len({pair for task in some for pair in pairs_of(needed(task))})

    assert met(ordered[:100]) > met(tasks[:100]) and met(ordered[:120]) == met(tasks)


def test_the_same_conversation_again_is_refused_as_a_duplicate(tmp_path: Path) -> None:
    settings = resolve(Stage.SYNTH_COLDSTART, overrides=["max_similarity=0.9"]).settings
    gate = Gate(settings, tmp_path)  # type: ignore[arg-type]
    library = builtin("library")
    (task, one), (other_task, other) = talks("library", "careful")[:2]
    again = replace(one, episode_id="again")

    async def judged() -> list[bool]:
        return [await gate.judge(e, library, t) for e, t in ((one, task), (again, task), (other, other_task))]

    assert asyncio.run(judged()) == [True, False, True]
    assert gate.verdicts["again"]["codes"] == ["duplicate/near"]
    assert one.episode_id in gate.verdicts["again"]["reasons"][0]


def test_a_limit_of_words_refuses_lectures(tmp_path: Path) -> None:
    assert synth(tmp_path / "run", "--count", "4", "max_message_words=3", "max_attempts=2") == 65


def test_the_same_command_again_gives_the_same_verdicts(run: Path) -> None:
    before = (run / "verdicts.jsonl").read_bytes(), (run / "card.json").read_bytes()
    assert synth(run, "--count", "60", "--agent", "careful=0.5,hasty=0.5") == 0
    assert ((run / "verdicts.jsonl").read_bytes(), (run / "card.json").read_bytes()) == before


def test_verify_finds_what_was_changed_behind_its_back(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["accepted"] == result["passed"] == result["carried_out_again"] == 60 and result["twice"] == 0
    verdicts = run / "verdicts.jsonl"
    before = verdicts.read_bytes()
    try:
        verdicts.write_bytes(before.replace(b'"accepted":false', b'"accepted":true'))
        assert main(["verify", str(run), "--json"]) == 1
        result = json.loads(capfd.readouterr().out)
        assert result["failed"] and set(result["refused_for"]) & {"rules/confirm_before_write", "state/not_gold"}
    finally:
        verdicts.write_bytes(before)
    assert main(["verify", str(run / "nowhere")]) != 0


class Judge:
    """Three judges: one accepts, one rejects what mentions an order, one answers rubbish the first time."""

    models = ("kind", "strict", "muddled")

    def message(self, body: Any) -> dict[str, Any]:
        prompt = body["messages"][0]["content"]
        if body["model"] == "muddled" and "Your last answer could not be read" not in prompt:
            return {"content": "I like it."}
        bad = body["model"] == "strict" or (body["model"] == "muddled" and "calls get_order" in prompt)
        verdict = {"verdict": "reject" if bad else "accept", "reason": "an order" if bad else "fine"}
        return {"content": f"Here it is: {json.dumps(verdict)}"}


def test_a_committee_decides_by_more_than_half_and_every_reply_is_kept(tmp_path: Path) -> None:
    out, fake = tmp_path / "run", FakeOpenAI(Judge())
    words = ["--count", "6", "--judges-models", "kind,strict,muddled", "max_attempts=8"]
    with Running(fake) as url:
        assert synth(out, *words, f"judges.base_url={url}") == 0
        asked = fake.count
        assert synth(out, *words, f"judges.base_url={url}") == 0
    assert fake.count == asked, "a vote that is there is not asked for again"
    verdicts = read_verdicts(out)
    episodes = {e.episode_id: e for e in iter_episodes(out)}
    for key, row in verdicts.items():
        if row["checks"]["judges"] == "na":
            continue
        orders = any(e.call and e.call.name == "get_order" for e in episodes[key].events)
        assert row["checks"]["judges"] == ("fail" if orders else "pass")
        if orders:
            assert "judges/outvoted: 1 of 3 judges accept" in row["reasons"][0]
    rows = [json.loads(line) for line in (out / "judgements.jsonl").read_text().splitlines()]
    assert len(rows) == asked
    muddled = [row for row in rows if row["judge"] == "muddled"]
    assert [row["vote"] is None for row in muddled[:2]] == [True, False] and muddled[0]["reply"] == "I like it."


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ('{"verdict": "accept", "reason": "ok"}', True),
        ('```json\n{"verdict": "Reject", "reason": "rude"}\n```', False),
        ("accept", None),
        ('{"verdict": "maybe"}', None),
        ('{"verdict": ', None),
        ("", None),
        ('{"a": {"verdict": "accept"}}', None),
    ],
)
def test_a_vote_is_read_from_the_object_in_the_reply_or_is_none(text: str, vote: bool | None) -> None:
    assert read_vote(text)[0] is vote
