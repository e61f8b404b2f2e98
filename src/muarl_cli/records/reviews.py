"""What people decided about episodes: accepted or not, and why; the last word on an episode counts.

Invariant: decisions are only ever added; verdicts are made from them again whenever they are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from muarl_cli.records.journal import Journal

NAME = "reviews.jsonl"


@dataclass(frozen=True)
class Review:
    """One decision of a person."""

    episode_id: str
    accepted: bool
    reason: str
    reviewer: str = ""


def read_reviews(folder: Path) -> dict[str, Review]:
    """Episode id to the last decision about it; empty where nobody looked."""
    rows = Journal(folder / NAME).rows()
    return {
        str(row["episode_id"]): Review(
            str(row["episode_id"]), bool(row["accepted"]), str(row.get("reason", "")), str(row.get("reviewer", ""))
        )
        for row in rows
        if "episode_id" in row and "accepted" in row
    }


def add_review(journal: Journal, review: Review) -> None:
    """Write a decision down."""
    journal.add(
        {
            "episode_id": review.episode_id,
            "accepted": review.accepted,
            "reason": review.reason,
            "reviewer": review.reviewer,
        }
    )
