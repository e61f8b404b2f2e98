"""Ten projects with their steps, and the goals of those who work on them.

Invariant: whether a step may be moved on is decided by the policy's table of statuses on the initial state; two goals
of a task never concern the same step.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

THINGS = (
    "roof",
    "kitchen",
    "garden",
    "website",
    "catalogue",
    "festival",
    "library hall",
    "workshop",
    "exhibition",
    "archive room",
)
VERBS = ("measure", "order", "clean", "paint", "photograph", "insure", "test", "deliver")
PARTS = ("the doors", "the lamps", "the tables", "the signs", "the cables", "the posters")
NEW_VERBS = ("invite", "call", "thank")
NEW_PARTS = ("the neighbours", "the sponsors", "the mayor", "the electrician", "the printer", "the caterer")
DESCRIPTIONS = (
    "two people are enough", "needs a ladder", "ask at the office first", "only in dry weather", 
    "the key is at the gate", "take pictures before and after", "not on a monday",
)  # fmt: skip
STATUSES = ("pending", "pending", "in-progress", "in-review", "done", "cancelled")
ALLOWED: Mapping[str, frozenset[str]] = {
    "start": frozenset({"pending"}),
    "cancel": frozenset({"pending"}),
    "submit": frozenset({"in-progress"}),
    "finish": frozenset({"in-progress", "in-review"}),
    "reopen": frozenset({"done", "cancelled"}),
    "hand_on": frozenset({"in-progress", "in-review"}),
    "replace": frozenset({"pending"}),
    "rush": frozenset({"pending"}),
}
"""the statuses in which a step can be moved on"""
REFUSABLE = frozenset({"start", "cancel", "submit", "finish", "reopen"})

Tables = dict[str, dict[str, dict[str, Any]]]
Drawn = tuple[dict[str, Any], str, dict[str, str]]


def state(seed: int) -> Tables:
    """Ten projects with eight steps each."""
    rng = random.Random(f"project_tasks/{seed}")
    projects: dict[str, dict[str, Any]] = {}
    for number, thing in enumerate(THINGS, 1):
        titles = rng.sample([f"{verb} {part}" for verb in VERBS for part in PARTS], 8)
        statuses = ["pending", "pending", "in-progress", *(rng.choice(STATUSES) for _ in range(5))]
        rng.shuffle(statuses)
        steps = {f"s{number:02d}t{place:02d}": pair for place, pair in enumerate(zip(titles, statuses, strict=True), 1)}
        projects[f"s{number:02d}"] = {"title": f"{thing} renewed", "steps": steps}
    return {"projects": projects}


_LINES = {
    "pending": "- [ ] {step}: {title}",
    "in-progress": "- [~] {step}: {title}",
    "in-review": "- [~] {step}: **review** {title}",
    "done": "- [x] {step}: {title}",
    "cancelled": "- [x] ~~{step}: {title}~~",
}
"""how the server writes a step of each status"""


def write(tables: Tables, place: Path) -> None:
    """The files of the server: a page a project, with a line a step."""
    root = place / ".tasker"
    (root / "archive").mkdir(parents=True)
    (root / ".gitignore").write_text("# tasker\n", encoding="utf-8")  # by its first line the server knows its folder
    for key, project in tables["projects"].items():
        slug = project["title"].replace(" ", "-")
        steps = project["steps"].items()
        lines = [_LINES[status].format(step=step, title=title.capitalize()) for step, (title, status) in steps]
        head = ["---", f"id: {key}", f"slug: {slug}", "status: in-progress", "---", ""]
        page = [*head, f"# {project['title'].capitalize()}", "", "## Subtasks", "", *lines, ""]
        (root / f"{key}-{slug}.md").write_text("\n".join(page), encoding="utf-8")


def subjects(tables: Tables) -> list[str]:
    """What a task can be about: the projects."""
    return list(tables["projects"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent in this project: (slots, why it must be refused or "", hints for what may be unknown)."""
    if wish == "refused" and intent not in REFUSABLE:
        return None
    steps = tables["projects"][subject]["steps"]
    taken = {used.get("step"), used.get("second")}
    free = [step for step in steps if step not in taken]
    allowed = ALLOWED.get(intent)
    fitting = [s for s in free if allowed is None or (steps[s][1] in allowed) == (wish == "possible")]
    if not fitting:
        return None
    step = rng.choice(fitting)
    title, status = steps[step]
    slots: dict[str, Any] = {"project": subject, "step": step}
    slots |= {slot: other_value(rng, slot, used.get(slot)) for slot in ("title", "description")}
    if intent == "hand_on":
        pending = [s for s in free if steps[s][1] == "pending"]
        if not pending:
            return None
        slots["second"] = rng.choice(pending)
    if intent == "standing":
        slots["answer"] = status
    if intent == "which":
        slots |= {"title": title, "answer": step}
    return slots, "" if wish == "possible" else f"the step is {status}", {"step": f"to {title}"}


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value`, for a change of mind."""
    titles = tuple(f"{verb} {part}" for verb in NEW_VERBS for part in NEW_PARTS)
    options = {"title": titles, "description": DESCRIPTIONS}[slot]
    return rng.choice([option for option in options if option != value])
