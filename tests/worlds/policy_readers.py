"""The written policies of two scenarios, read a second time: what a careful reader concludes from a tool's answer.

Nothing here comes from the scenarios' own conditions or constants: the numbers are those of the policy texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Seen = Mapping[str, Any]
TODAY, TOMORROW = "2026-06-04", "friday"
DEGREES = ["none", "vocational", "bachelor", "master"]


def recruiting_allows(intent: str, wish: Mapping[str, Any], seen: Seen) -> bool:
    """Whether the recruiting desk's policy allows the wish, after the read that comes before it."""
    match intent:
        case "apply" | "reserve":
            candidate = seen["candidate"]
            return (
                seen["status"] == ("open" if intent == "apply" else "on hold")
                and seen["deadline"] >= TODAY
                and candidate["years"] >= seen["takes"]["years"]
                and DEGREES.index(candidate["degree"]) >= DEGREES.index(seen["takes"]["degree"])
                and not candidate["applied for it"]
                and not candidate["applied today"]
                and candidate["active applications"] < 7
                and wish["salary"] <= seen["pays up to"]
            )
        case "refer":
            takes = seen["status"] == "open" and seen["deadline"] >= TODAY and seen["takes"]["referrals"]
            return takes and not seen["candidate"]["referred somebody this month"]
        case "alert":
            return not seen["alert"]
        case "withdraw":
            return seen["status"] in ("submitted", "screening", "invited", "scheduled")
        case "document":
            fit = seen["status"] in ("submitted", "screening") and not seen["completed"]
            return fit and wish["document"] not in seen["documents"]
        case "interview":
            return seen["status"] == "invited" and TOMORROW not in wish["when"]
        case "reschedule":
            fit = seen["status"] == "scheduled" and not seen["moved"] and TOMORROW not in seen["when"]
            return fit and TOMORROW not in wish["when"]
        case "accept" | "turndown" | "negotiate":
            if seen["status"] != "offer" or seen["until"] < TODAY:
                return False
            if intent == "accept":
                cleared = not seen["takes a background check"] or seen["check"] == "cleared"
                return cleared and wish["start"] >= "2026-07-01"
            if intent == "negotiate":
                return not seen["negotiated"] and seen["offer"] < wish["salary"] <= seen["pays up to"]
            return True
        case "check":
            fit = seen["status"] in ("scheduled", "offer") and seen["takes a background check"]
            return fit and seen["check"] == "none"
        case "feedback":
            return seen["status"] == "rejected" and not seen["explained"]
    return True


def letting_allows(intent: str, wish: Mapping[str, Any], seen: Seen) -> bool:
    """Whether the letting agency's policy allows the wish, after the read that comes before it."""
    match intent:
        case "viewing":
            client = seen["client"]
            fit = seen["status"] == "free" and "planned" not in client["viewings of it"]
            return fit and client["missed viewings"] < 2 and TOMORROW not in wish["when"]
        case "apply":
            client = seen["client"]
            return (
                seen["status"] == "free"
                and "done" in client["viewings of it"]
                and not client["applied for it"]
                and client["running applications"] < 3
                and client["income"] >= 3 * seen["rent"]
                and wish["people"] <= 2 * seen["rooms"]
                and "months" not in wish["term"].replace("eighteen months", "")
            )
        case "rent":
            fit = seen["client"]["is the owner"] and seen["status"] == "free" and not seen["rent changed before"]
            return fit and wish["rent"] <= 1.1 * seen["rent"] + 1e-9
        case "move" | "cancel":
            if seen["status"] != "planned" or TOMORROW in seen["when"]:
                return False
            return intent == "cancel" or (not seen["moved"] and TOMORROW not in wish["when"])
        case "sign":
            return seen["status"] == "approved" and seen["until"] >= TODAY and wish["start"] <= "2026-09-01"
        case "withdraw":
            return seen["status"] in ("open", "approved")
        case "phone" | "email" | "note" | "handover":
            return True
    return seen["status"] == "active" and _lease_allows(intent, wish, seen)


def _lease_allows(intent: str, wish: Mapping[str, Any], seen: Seen) -> bool:
    earliest = {1: "2026-07-04", 3: "2026-09-04"}[seen["notice"]]
    match intent:
        case "deposit":
            return seen["deposit"] == "open" and wish["method"] != "cash"
        case "renew":
            long_enough = wish["term"] not in ("two months", "three months")
            return not seen["renewed"] and not seen["arrears"] and seen["ends"] <= "2026-09-04" and long_enough
        case "notice":
            return wish["leaving"] >= earliest
        case "release":
            return wish["leaving"] < earliest and not seen["arrears"] and not seen["release"]
        case "repair" | "emergency":
            urgent = wish["item"] in ("heating", "boiler", "front door", "water pipe")
            small = wish["item"] in ("light bulb", "blocked sink", "squeaking hinge")
            return urgent == (intent == "emergency") and not small and wish["item"] not in seen["repairs"]
        case "pet":
            small = wish["pet"] in ("hamster", "rabbit", "parrot", "tortoise")
            return not seen["pet"] and (seen["pets allowed"] == "all" or (seen["pets allowed"] == "small" and small))
        case "flatmate":
            return seen["people"] + len(seen["flatmates"]) + 1 <= 2 * seen["rooms"]
    raise ValueError(f"no policy for {intent}")
