"""Imported conversations: their form, what may not be in them, and what is read off them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.transcripts import known_chats

from muarl_cli.cli.app import main
from muarl_cli.cli.console import Talk
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline import importing
from muarl_cli.pipeline.importing import episode_of
from muarl_cli.records.log import iter_episodes
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve
from muarl_cli.users.dialogue import Dialogue
from muarl_cli.users.facts import FactBook, Facts
from muarl_cli.users.habits import rates_of
from muarl_cli.users.injectors import Injector
from muarl_cli.users.observed import Reader
from muarl_cli.users.transcripts import read_chats, unredacted
from muarl_cli.worlds.catalog import load_tasks, scenario_of
from muarl_cli.worlds.domain import builtin

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "transcripts" / "retail.jsonl"
TALK = [{"role": "customer", "content": "please cancel an order"}, {"role": "bot", "content": "which one?"}]


def _file(folder: Path, *rows: Any) -> Path:
    file = folder / "chats.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def _import(files: list[Path], out: Path, allow: bool = False) -> dict[str, Any]:
    return importing.run(files, "retail", out, allow, Talk(json=True))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("import") / "people"
    _import([EXAMPLE], out)
    return out


# --- the form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[]",
        {"messages": "hi"},
        {"messages": [{"role": "user", "content": "alone"}]},
        {"messages": [*TALK, {"role": "owl", "content": "hu"}]},
        {"messages": [*TALK, {"role": "user", "content": 7}]},
        {"messages": [*TALK, "hello"]},
    ],
)
def test_a_line_of_another_form_is_refused_with_its_place(row: Any, tmp_path: Path) -> None:
    with pytest.raises(MuarlError) as refused:
        read_chats([_file(tmp_path, {"messages": TALK}, row)])
    assert refused.value.code is ExitCode.BAD_DATA and "chats.jsonl:2" in refused.value.where


def test_a_repeated_id_an_empty_file_and_an_absent_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MuarlError, match="comes twice"):
        read_chats([_file(tmp_path, *[{"id": "a", "messages": TALK}] * 2)])
    for file in (_file(tmp_path, ""), tmp_path / "absent.jsonl"):
        with pytest.raises(MuarlError) as refused:
            read_chats([file])
        assert refused.value.code is ExitCode.MISSING_INPUT


def test_roles_have_other_names_and_system_and_tool_messages_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"role": "system", "content": "s"},
        *TALK,
        {"role": "tool", "content": "t"},
        {"role": "user", "content": None},
    ]
    (chat,) = read_chats([_file(tmp_path, {"messages": rows})])
    assert [(m.actor.value, m.text) for m in chat.messages] == [
        ("user", "please cancel an order"),
        ("agent", "which one?"),
    ]


# --- what looks like somebody's data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jane.doe+x@mail.example.org please", ["e-mail address"]),
        ("call +1 (555) 010-9988", ["phone number"]),
        ("call 0555-0109988 or 5550109988", ["phone number"]),
        ("card 4111 1111 1111 1111", ["card number"]),
        ("4111-1111-1111-1112 is no card, and too long for a phone", []),
        ("order 4821, 3 of them, on 12/05", []),
        ("mail [EMAIL], call [PHONE], order [ORDER_ID]", []),
    ],
)
def test_mail_phone_and_card_numbers_are_seen_and_placeholders_and_order_numbers_are_not(
    text: str, kinds: list[str], tmp_path: Path
) -> None:
    chats = read_chats([_file(tmp_path, {"messages": [*TALK, {"role": "user", "content": text}]})])
    assert [one.kind for one in unredacted(chats)] == kinds


def test_what_looks_unredacted_is_refused_before_anything_is_written_and_never_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _file(tmp_path, {"messages": [*TALK, {"role": "user", "content": "i am jane@mail.example, 555 0109988"}]})
    command = ["import", "transcripts", str(file), "--scenario", "retail", "--out", str(tmp_path / "out")]
    assert main(command) == ExitCode.BAD_DATA
    said = capsys.readouterr().err
    assert "chats.jsonl:1" in said and "e-mail" in said and "phone" in said and "--allow-unredacted" in said
    assert "jane" not in said and "0109988" not in said
    assert not (tmp_path / "out").exists()
    assert main([*command, "--allow-unredacted"]) == ExitCode.OK


def test_chats_about_something_else_are_refused_with_what_the_scenario_knows(tmp_path: Path) -> None:
    rows = [{"role": "user", "content": "nice weather"}, {"role": "agent", "content": "indeed"}]
    with pytest.raises(MuarlError, match="in none of 1 chats") as refused:
        _import([_file(tmp_path, {"messages": rows})], tmp_path / "out")
    assert "cancel" in refused.value.next_step


# --- what is read off them --------------------------------------------------------------------------------------------


def test_requests_facts_unknowns_changes_and_refusals_of_the_example_are_read(people: Path) -> None:
    rows = {row["id"]: row["requests"] for row in map(json.loads, (people / "shapes.jsonl").read_text().splitlines())}
    assert [r["intent"] for r in rows["two-things"]] == ["shipping", "email"]
    assert rows["two-things"][0] == {
        "intent": "shipping",
        "told": ["customer_id", "order_id"],
        "unknown": [],
        "change": "speed",
        "refused": False,
    }
    assert rows["wrong-street"][0]["unknown"] == ["order_id"]
    assert rows["coupon"][0]["refused"] and not rows["gift"][0]["refused"]
    assert rows["payment"][0]["change"] == "method"


def test_no_word_of_a_chat_is_in_a_task_and_the_same_folder_gives_the_same_tasks(people: Path) -> None:
    tasks = scenario_of(str(people), "retail").tasks("imported")
    again = scenario_of(str(people), "retail").tasks("imported")
    assert [task.task_hash for task in tasks] == [task.task_hash for task in again] and len(tasks) == 12
    text = json.dumps([[dict(task.brief), dict(task.initial)] for task in tasks])
    assert "[" + "ORDER_ID" not in text and "not said" not in text and "neighbour" not in text


def test_imported_tasks_and_users_go_into_a_rollout_and_the_careful_agent_solves_them(people: Path) -> None:
    from muarl_cli.pipeline import rollout

    flags = {"agent": "careful", "tasks": [f"{people}:retail:imported"], "group": 2}
    resolved = resolve(
        Stage.ROLLOUT, config=people / "user.yaml", flags={k: (k, v) for k, v in flags.items()}, environ={}
    )
    assert resolved.settings.user.injectors["impatience"] > 0  # type: ignore[attr-defined]
    found = rollout.run(resolved.settings, people.parent / "like", Talk(json=True))
    assert found["exit_code"] == ExitCode.OK and found["score"]["mean"] == 1.0


def test_the_settings_written_are_settings_of_rl_train_too(people: Path) -> None:
    written = yaml.safe_load((people / "user.yaml").read_text())["user"]
    flags = {"model": "m", "tasks": [f"{people}:retail:imported"]}
    resolved = resolve(
        Stage.RL_TRAIN, config=people / "user.yaml", flags={k: (k, v) for k, v in flags.items()}, environ={}
    )
    assert resolved.settings.user.personas == written["personas"]  # type: ignore[attr-defined]
    assert len(load_tasks(resolved.settings.tasks)) == 12  # type: ignore[attr-defined]


def test_another_scenario_split_or_folder_is_refused_with_the_right_reference(people: Path, tmp_path: Path) -> None:
    for source, name, split in ((str(people), "library", "imported"), (str(people), "retail", "test")):
        with pytest.raises(MuarlError, match=r"imported for retail|unknown split"):
            scenario_of(source, name).tasks(split)
    with pytest.raises(MuarlError, match="is unknown"):
        scenario_of(str(tmp_path), "retail")


def test_importing_the_same_again_changes_nothing_and_other_chats_need_another_folder(
    people: Path, tmp_path: Path
) -> None:
    before = {file.name: file.read_bytes() for file in people.iterdir() if file.is_file()}
    _import([EXAMPLE], people)
    after = {file.name: file.read_bytes() for file in people.iterdir() if file.is_file()}
    assert {name for name in before if before[name] != after[name]} <= {"run.lock"}
    with pytest.raises(MuarlError):
        _import([_file(tmp_path, {"id": "a", "messages": TALK})], people)


@pytest.mark.parametrize("name", ["retail", "library"])
def test_requests_of_known_users_are_found_again(name: str) -> None:
    domain = builtin(name)
    reader = Reader(domain.language, domain, "train")
    seen = [(known, reader.requests(known.chat)) for known in known_chats(domain, 40, {})]
    right = sum([r.intent.name for r in requests] == [g.intent for g in known.goals] for known, requests in seen)
    assert right >= 34
    changing = [(known.goals, found) for known, found in seen if any(g.change for g in known.goals)]
    found = sum(any(r.change for r in requests) for _, requests in changing)
    assert found >= 0.8 * len(changing) and len(changing) > 15


@pytest.mark.parametrize("injector", [Injector.IMPATIENCE, Injector.REFUSE_ONCE, Injector.WRONG_THEN_CORRECT])
def test_a_habit_that_users_have_is_estimated_and_one_they_lack_is_not(injector: Injector) -> None:
    domain = builtin("retail")
    reader = Reader(domain.language, domain, "train")
    shares = {}
    for rate in (0.0, 1.0):
        talks = []
        for known in known_chats(domain, 24, {injector.value: rate}):
            requests = reader.requests(known.chat)
            facts = FactBook().of(episode := episode_of(domain, known.chat, requests, "test"))
            assert isinstance(facts, Facts)
            talks.append((known.chat, Dialogue(episode, facts)))
        shares[rate] = rates_of(talks)[injector].share
    assert shares[0.0] <= 0.05 and shares[1.0] >= 0.8


# --- the audit beside people ------------------------------------------------------------------------------------------


def test_the_audit_stands_beside_that_of_people_metric_by_metric(
    people: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "audit.html"
    command = ["users", "audit", str(people), "--against", str(people), "--json", "--html", str(page)]
    assert main(command) == ExitCode.OK
    (pair,) = json.loads(capsys.readouterr().out)["against"]
    rows = {row["id"]: row for row in pair["metrics"]}
    assert rows["S12"]["difference"] == 0.0 and rows["S12"]["people"] > 0
    assert rows["S15"] == {**rows["S15"], "simulated": None, "people": None, "difference": None}
    assert {"S3", "S4", "S13", "S14"} <= {name for name, row in rows.items() if row["people"] is not None}
    assert "against people" in page.read_text()


def test_a_difference_stands_in_the_unit_of_the_figures_beside_it() -> None:
    from muarl_cli.users.audit import METRICS, GroupAudit, Result
    from muarl_cli.users.audit_report import failing, likeness_tables
    from muarl_cli.users.likeness import Likeness, Pair

    share, count = (next(m for m in METRICS if m.id == wanted) for wanted in ("S3", "S12"))
    group = GroupAudit("scripted", "", 1, 0, (Result(share, 0.75, 4, None), Result(count, 6.0, 4, None)))
    pairs = (Pair(share, 0.75, 0.5), Pair(count, 6.0, 4.5), Pair(share, None, 0.5))
    (table,) = likeness_tables([Likeness(group, group, pairs)])
    assert [cells[-1] for cells in table.texts()] == ["+25.0 pp", "+1.50", "–"]
    assert (failing(["a"]), failing(["a", "b"])) == ("1 gate fails", "2 gates fail")


def test_a_log_without_people_is_no_side_to_compare_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from muarl_cli.pipeline import rollout

    settings = resolve(
        Stage.ROLLOUT, overrides=["agent=careful", "tasks=builtin:retail:dev", "max_tasks=2", "group=1"], environ={}
    ).settings
    rollout.run(settings, tmp_path / "log", Talk(json=True))
    assert len(list(iter_episodes(tmp_path / "log"))) == 2
    assert main(["users", "audit", str(tmp_path / "log"), "--against", str(tmp_path / "log")]) == ExitCode.BAD_DATA
    assert "import transcripts" in capsys.readouterr().err
