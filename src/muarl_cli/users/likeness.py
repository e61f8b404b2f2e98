"""Simulated users against real ones: the audit of one log beside that of imported chats, metric by metric.

Invariant: a difference stands only where both sides have a value; what one side lacks is null, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.users.audit import PERSON, Audit, GroupAudit, Metric


@dataclass(frozen=True)
class Pair:
    """One metric of a simulated group and of people."""

    metric: Metric
    simulated: float | None
    people: float | None

    @property
    def difference(self) -> float | None:
        """Simulated minus people."""
        return None if self.simulated is None or self.people is None else self.simulated - self.people


@dataclass(frozen=True)
class Likeness:
    """One simulated group against the people."""

    group: GroupAudit
    people: GroupAudit
    pairs: tuple[Pair, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "backend": self.group.backend,
            "persona": self.group.persona,
            "episodes": self.group.episodes,
            "people": self.people.episodes,
            "metrics": [
                {
                    "id": pair.metric.id,
                    "name": pair.metric.name,
                    "simulated": pair.simulated,
                    "people": pair.people,
                    "difference": pair.difference,
                }
                for pair in self.pairs
            ],
        }


def against(simulated: Audit, imported: Audit, where: str) -> tuple[Likeness, ...]:
    """Each group of a log against the people of another one; raises `MuarlError` where nobody of `imported` is one."""
    people = next((group for group in imported.groups if group.backend == PERSON), None)
    if people is None:
        raise MuarlError(
            "there are no real users to compare with",
            where=where,
            next_step="name a folder that `muarl import transcripts` wrote, or a log of `muarl play --as user`",
            code=ExitCode.BAD_DATA,
        )
    return tuple(
        Likeness(
            group,
            people,
            tuple(Pair(r.metric, r.value, people[r.metric.id].value) for r in group.results),
        )
        for group in simulated.groups
    )
