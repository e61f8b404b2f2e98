"""A person looks at accepted demonstrations, one page each, and has the last word.

Invariants: a decision is on disk before the next page is shown, so that leaving (or a killed terminal) loses none; what
a model said is cleaned before it is shown; the log is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Kind
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.verification import refusals_of
from muarl_cli.records.journal import Journal
from muarl_cli.records.reviews import NAME, Review, add_review, read_reviews
from muarl_cli.records.verdicts import read_verdicts, write_verdicts
from muarl_cli.reports.run_view import load_runs
from muarl_cli.verification.reading import line_of
from muarl_cli.verification.subject import Filter

HELP = "a = accept, r REASON = reject, s = skip, q = quit"
PERSON = Filter.PERSON.value


def run(
    folder: Path,
    reviewer: str,
    most: int,
    show: Callable[[str], None],
    ask: Callable[[str], str | None],
) -> dict[str, Any]:
    """Show up to `most` accepted episodes (0 = all) that nobody decided about; `ask` returns a line, None at the end
    of the input. Returns counts. Raises `MuarlError` where there is nothing to review."""
    view = load_runs([folder])[0]
    decided = read_reviews(folder)
    waiting = [
        e for e in view.episodes if e.episode_id not in decided and view.verdicts.get(e.episode_id, {}).get("accepted")
    ]
    if not waiting and not decided:
        raise MuarlError("there is no accepted episode to review", where=str(folder), code=ExitCode.MISSING_INPUT)
    pages = waiting[:most] if most else waiting
    journal = Journal(folder / NAME)
    counts = {"accepted": 0, "rejected": 0, "skipped": 0}
    try:
        for number, episode in enumerate(pages, 1):
            for line in page(episode, view.tasks.get(episode.task_hash), f"{number} of {len(pages)}"):
                show(line)
            answer = _decision(show, ask)
            if answer is None:
                break
            kind, reason = answer
            counts[kind] += 1
            if kind != "skipped":
                add_review(journal, Review(episode.episode_id, kind == "accepted", reason, reviewer))
    finally:
        journal.close()
        write_verdicts(folder, with_reviews(read_verdicts(folder), read_reviews(folder)))
    left = len(waiting) - counts["accepted"] - counts["rejected"]
    return counts | {"decided_before": len(decided), "left": left}


def page(episode: Episode, known: tuple[Any, Any] | None, place: str) -> list[str]:
    """One trajectory for the terminal: what it is, what the user wanted, what happened."""
    lines = ["", f"=== {place}: {episode.scenario} {episode.task_id} ({episode.episode_id})"]
    if known is not None:
        scenario, task = known
        lines += ["--- what the user wants", *scenario.user_prompt(task).splitlines()]
    lines += ["--- conversation", *(line_of(e) for e in episode.events if e.kind is not Kind.END)]
    reward = "none" if episode.reward is None else f"{episode.reward:g}"
    return [*lines, f"--- ended: {episode.end.reason.value}, reward {reward}"]


def _decision(show: Callable[[str], None], ask: Callable[[str], str | None]) -> tuple[str, str] | None:
    while (line := ask(f"{HELP} > ")) is not None:
        word, _, rest = line.strip().partition(" ")
        if word in ("a", "accept"):
            return "accepted", rest.strip()
        if word in ("r", "reject"):
            if rest.strip():
                return "rejected", rest.strip()
            show("a rejection needs a reason: r REASON")
            continue
        if word in ("s", "skip"):
            return "skipped", ""
        if word in ("q", "quit"):
            return None
        show(HELP)
    return None


def with_reviews(verdicts: Mapping[str, Mapping[str, Any]], reviews: Mapping[str, Review]) -> dict[str, dict[str, Any]]:
    """The verdicts with what people decided; the last decision about an episode counts."""
    found = {key: dict(row) for key, row in verdicts.items()}
    for key, review in reviews.items():
        row = found.get(key)
        if row is None:
            continue
        reasons = [reason for reason in row.get("reasons", ()) if not reason.startswith(f"{PERSON}/")]
        codes = [code for code in row.get("codes", ()) if not code.startswith(f"{PERSON}/")]
        checks = dict(row.get("checks", {})) | {PERSON: "pass" if review.accepted else "fail"}
        for reason in refusals_of(review):
            reasons.append(str(reason))
            codes.append(reason.key)
        row |= {"reasons": reasons, "codes": sorted(codes), "checks": checks, "accepted": not reasons}
    return found
