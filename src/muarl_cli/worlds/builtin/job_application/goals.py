"""How a candidate's goals are drawn from the recruiting desk's state.

Invariant: whether a goal can be served is decided by the conditions that the tools refuse by, on the initial state;
goals of one task never concern the same application or opening, so the first cannot change the answer to the second.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from muarl_cli.worlds.builtin.job_application import conditions, state
from muarl_cli.worlds.builtin.job_application.state import STEP, Tables
from muarl_cli.worlds.draws import Drawn, chosen, other
from muarl_cli.worlds.store import Record

OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "when": state.TIMES,
    "mode": state.MODES,
    "document": state.MORE_DOCUMENTS,
    "reason": state.REASONS,
    "start": state.STARTS,
    "agency": state.AGENCIES,
    "channel": state.CHANNELS,
    "field": state.FIELDS,
    "site": state.SITES,
    "topic": state.TOPICS,
}
"""slots with few values, those that the policy allows"""
BARRED: Mapping[str, tuple[Any, ...]] = {
    "when": state.SOON,
    "document": state.USUAL_DOCUMENTS,
    "start": state.EARLY_STARTS,
}
"""values that the policy may bar"""
CANDIDATE_SLOTS: Mapping[str, tuple[str, ...]] = {
    "phone": ("phone",),
    "email": ("email",),
    "alert": ("field", "site"),
    "note": ("topic",),
    "handover": ("topic",),
}
"""intents that concern the candidate alone, with what they need besides"""
APPLICATION_SLOTS: Mapping[str, tuple[str, ...]] = {
    "withdraw": ("reason",),
    "interview": ("when", "mode"),
    "reschedule": ("when",),
    "document": ("document",),
    "accept": ("start",),
    "turndown": ("reason",),
    "negotiate": ("salary",),
    "check": ("agency",),
    "feedback": ("channel",),
}
"""intents that concern an application, with what they need besides"""
RIVALS = ({"withdraw", "turndown"}, {"apply", "reserve"})
"""intents that open with the same words: what the candidate's file says decides which of them it is, so a task has one
of each pair, and neither is asked for where the other would be right"""
OPENINGS_TRIED = 24
"""openings that are looked at for one goal"""


def subjects(tables: Tables) -> list[str]:
    """Whom a task can be about: the candidates."""
    return list(tables["candidates"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent of this candidate: (slots, why it must be refused or "", hints for what may be unknown).

    `wish` is "possible" or "refused". `used` holds values of the task's earlier goal. None where this candidate has
    nothing that fits.
    """
    if any({intent, used.get("intent")} == pair for pair in RIVALS):
        return None
    candidate, slots = tables["candidates"][subject], {"candidate_id": subject}
    rows: list[Drawn] = []
    if intent in CANDIDATE_SLOTS:
        reason = conditions.no_alert(candidate) if intent == "alert" else ""
        rows.append((slots | {s: other_value(rng, s, used.get(s)) for s in CANDIDATE_SLOTS[intent]}, reason, {}))
    elif intent in APPLICATION_SLOTS:
        for number in candidate["applications"]:
            application = tables["applications"][number]
            if intent in ("withdraw", "turndown") and (application["status"] == "offer") != (intent == "turndown"):
                continue
            opening = tables["openings"][application["opening"]]
            values = _values(rng, intent, application, opening, wish == "refused")
            hints = {"application_id": f"the one as {application['opening']}"}
            found = _refusal(intent, application, opening, values)
            rows.append((slots | {"application_id": number} | values, found, hints))
    else:
        applications = [tables["applications"][number] for number in candidate["applications"]]
        for title in rng.sample(list(tables["openings"]), OPENINGS_TRIED):
            opening = tables["openings"][title]
            if intent in ("apply", "reserve") and (opening["status"] == "on hold") != (intent == "reserve"):
                continue
            values, reason = _opening_goal(rng, intent, candidate, title, opening, applications, wish == "refused")
            rows.append((slots | {"opening": title} | values, reason, {}))
    return chosen(rng, rows, wish, used, ("application_id", "opening"))


def _values(
    rng: random.Random, intent: str, application: Record, opening: Record, may_be_barred: bool
) -> dict[str, Any]:
    """What the candidate wants for an application; where a refusal is looked for, half the values are barred ones."""
    barred = may_be_barred and rng.random() < 0.5
    values: dict[str, Any] = {}
    for slot in APPLICATION_SLOTS[intent]:
        if slot == "salary":
            high = opening["high"]
            low = min(application.get("offer", 0) + 5 * STEP, high - STEP)  # above the offer, whatever the change
            values[slot] = high + STEP * rng.randrange(1, 9) if barred else rng.randrange(low, high, STEP)
        elif barred and slot in BARRED:
            values[slot] = rng.choice(BARRED[slot])
        else:
            values[slot] = other_value(rng, slot, application.get(slot))
    return values


def _refusal(intent: str, application: Record, opening: Record, values: Mapping[str, Any]) -> str:
    match intent:
        case "withdraw":
            return conditions.no_withdrawal(application)
        case "interview":
            return conditions.no_interview(application, values["when"])
        case "reschedule":
            return conditions.no_move(application, values["when"])
        case "document":
            return conditions.no_document(application, values["document"])
        case "accept":
            return conditions.no_acceptance(application, opening, values["start"])
        case "turndown":
            return conditions.no_answer(application)
        case "negotiate":
            return conditions.no_negotiation(application, opening, values["salary"])
        case "check":
            return conditions.no_check(application, opening)
        case "feedback":
            return conditions.no_feedback(application)
        case _:
            raise ValueError(f"unknown intent {intent}")


def _opening_goal(
    rng: random.Random,
    intent: str,
    candidate: Record,
    title: str,
    opening: Record,
    applications: list[Record],
    may_be_barred: bool,
) -> tuple[dict[str, Any], str]:
    if intent == "refer":
        return {"friend": other_value(rng, "friend", None)}, conditions.no_referral(candidate, opening)
    salary = rng.randrange(opening["low"], opening["high"], STEP)
    if may_be_barred and rng.random() < 0.5:
        salary = opening["high"] + STEP * rng.randrange(1, 9)
    applied = any(application["opening"] == title for application in applications)
    statuses = [application["status"] for application in applications]
    wanted = "on hold" if intent == "reserve" else "open"
    return {"salary": salary}, conditions.no_application(candidate, opening, statuses, applied, salary, wanted)


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value` that the policy allows wherever it allows `value`."""
    if slot == "salary":
        return value - STEP * rng.randrange(1, 5)
    return other(rng, "email" if slot == "friend" else slot, value, OPTIONS, state.NAMES, state.HOST)
