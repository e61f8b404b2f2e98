"""Course registration: the state keeps its own rules, and what a read says is what the writes do."""

from __future__ import annotations

import json
import random
from collections import Counter

from muarl_cli.worlds.builtin.course_registration import state
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.goals import goals_of

DOMAIN = builtin("course_registration")
TABLES = DOMAIN._tables
TASK = DOMAIN.tasks("dev")[0]


def test_nobody_is_over_the_limit_in_two_places_at_once_or_twice_in_a_course() -> None:
    for student_id, student in TABLES["students"].items():
        own = [e for e in TABLES["enrolments"].values() if e["student_id"] == student_id]
        sections = [TABLES["sections"][e["section_id"]] for e in own]
        assert sum(s["credits"] for s in sections) <= state.LIMITS[student["standing"]]
        assert len({s["time"] for s in sections}) == len({s["title"] for s in sections}) == len(own)


def test_seats_agree_with_the_enrolments_and_only_full_sections_are_waited_for() -> None:
    counts = Counter((e["section_id"], e["status"]) for e in TABLES["enrolments"].values())
    for key, section in TABLES["sections"].items():
        assert (section["taken"], section["waiting"]) == (counts[key, "enrolled"], counts[key, "waiting"])
        assert section["taken"] <= section["seats"]
        assert state.is_full(section) or not section["waiting"]


def test_what_a_section_says_is_what_enrolling_and_waiting_do() -> None:
    rng = random.Random(5)
    seen: Counter[str] = Counter()
    for _ in range(1500):
        student = rng.choice(list(TABLES["students"]))
        program = TABLES["students"][student]["program"]
        section = rng.choice([k for k, s in TABLES["sections"].items() if s["program"] == program])
        place = {"student_id": student, "section_id": section}
        said = json.loads(DOMAIN.world(TASK).run("get_section", place).text)
        done = {
            tool: DOMAIN.world(TASK).run(tool, place | {"mode": "online"}).ok
            for tool in ("enrol_student", "join_waitlist")
        }
        free = said["barrier"] == "none"
        assert done == {
            "enrol_student": free and said["seats"] == "open",
            "join_waitlist": free and said["seats"] == "full",
        }
        seen[said["barrier"].split(" ")[0] if free or "hold" not in said["barrier"] else "hold"] += 1
    assert set(seen) >= {"none", "hold", "too", "taken", "needs", "a", "over"}


def test_what_an_enrolment_says_is_what_leaving_it_does() -> None:
    for key, enrolment in TABLES["enrolments"].items():
        asked = {"student_id": enrolment["student_id"], "enrolment_id": key}
        said = json.loads(DOMAIN.world(TASK).run("get_enrolment", asked).text)
        done = {
            tool: DOMAIN.world(TASK).run(tool, {"enrolment_id": key, "reason": "changed plans"}).ok
            for tool in ("drop_enrolment", "withdraw_enrolment", "leave_waitlist")
        }
        enrolled = said["status"] == "enrolled"
        may_leave = enrolled and said["week"] <= 8 and said["load"] - said["credits"] >= 6
        assert done == {
            "drop_enrolment": may_leave and said["week"] <= 3,
            "withdraw_enrolment": may_leave,
            "leave_waitlist": not enrolled,
        }


def test_forcing_a_place_goes_past_every_check_and_that_is_why_it_is_forbidden() -> None:
    refused = [g for t in DOMAIN.tasks("dev") for g in goals_of(t.brief) if g.refused and g.intent == "enrol"]
    assert len(refused) >= 2
    for goal in refused:
        place = {name: goal.slots[name] for name in ("student_id", "section_id", "mode")}
        assert not DOMAIN.world(TASK).run("enrol_student", place).ok
        taken = goal.refused == "taken already"
        assert DOMAIN.world(TASK).run("force_enrol", place).ok or taken


def test_every_rule_of_the_policy_refuses_somebody() -> None:
    reasons = {goal.refused for task in DOMAIN.tasks("train") for goal in goals_of(task.brief)}
    for words in (
        "a hold by advising", "too late to join", "taken already", "needs basic", "a time conflict",
        "over the credit limit", "full, and so is the waitlist", "below 6 credits", "too late to leave",
        "a core course", "too late to change", "an open balance", "less than 110 credits", "on probation",
        "no open balance", "a balance below 500",
    ):  # fmt: skip
        assert any(words in reason for reason in reasons), words
