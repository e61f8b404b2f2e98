"""Who may become a demonstration: the filters, the committee and the people, asked in order of cost.

Invariant: verdicts depend on the episodes, their order, the settings, the judges' votes on disk and the people's
decisions on disk; asked again with the same of these they are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.hashing import canonical
from muarl_cli.pipeline.fingerprints import fingerprints
from muarl_cli.pipeline.parties import chat_model
from muarl_cli.pipeline.simulation import disagreement
from muarl_cli.records.files import replace_file
from muarl_cli.records.reviews import Review, read_reviews
from muarl_cli.settings.models import SynthColdstart
from muarl_cli.verification.card import data_card
from muarl_cli.verification.duplicates import Seen, shingles
from muarl_cli.verification.filters import chain
from muarl_cli.verification.subject import Filter, Reason, Subject
from muarl_cli.verification.verify import Verified, verify
from muarl_cli.worlds.scenario import Task

ENOUGH = "enough: the wanted count was reached"


CARD, CARD_TEXT = "card.json", "card.md"


class Gate:
    """Gives the verdicts of one run, episode by episode, in the order of the run."""

    def __init__(self, settings: SynthColdstart, folder: Path) -> None:
        self._count = settings.count
        self._checks = chain(settings.accept, settings.max_message_words)
        self._seen = Seen(settings.max_similarity) if settings.accept == "verified" else None
        self._reviews = read_reviews(folder)
        self._committee = _committee(settings, folder)
        self.held: list[Episode] = []
        self.accepted: list[Episode] = []
        self.verdicts: dict[str, dict[str, Any]] = {}

    async def judge(self, episode: Episode, scenario: Any, task: Task | None) -> bool:
        """Whether the episode is accepted; its verdict is kept."""
        subject = Subject(episode, scenario, task)
        verified = await self.verify(subject)
        row = verified.to_json() | {"layers": subject.layered.to_json()}
        if verified.accepted and len(self.accepted) >= self._count:
            row |= {"accepted": False, "reasons": [ENOUGH], "codes": ["enough"]}
        self.verdicts[episode.episode_id] = row
        self.held.append(episode)
        if row["accepted"]:
            self.accepted.append(episode)
        return bool(row["accepted"])

    async def verify(self, subject: Subject) -> Verified:
        """The filters; what costs money is only asked where nothing speaks against the episode so far."""
        verified = verify(subject, self._checks)
        if verified.accepted and self._seen is not None:
            verified = verified.plus(Filter.DUPLICATE, self._duplicate(self._seen, subject.episode))
        if verified.accepted and self._committee is None and subject.task and subject.task.extra.get("unchecked"):
            verified = verified.plus(Filter.JUDGES, [Reason(Filter.JUDGES, "needed", "no gold state, and no judges")])
        if verified.accepted and self._committee is not None:
            verified = verified.plus(Filter.JUDGES, await self._committee.judge(subject))
        if (review := self._reviews.get(subject.episode.episode_id)) is not None:
            verified = verified.plus(Filter.PERSON, refusals_of(review))
        return verified

    async def close(self) -> None:
        if self._committee is not None:
            await self._committee.close()

    @staticmethod
    def _duplicate(seen: Seen, episode: Episode) -> list[Reason]:
        words = shingles(episode.events)
        if (like := seen.like(words)) is not None:
            return [Reason(Filter.DUPLICATE, "near", f"{like[1]:.0%} of the words of {like[0]}")]
        seen.keep(episode.episode_id, words)
        return []


def _committee(settings: SynthColdstart, folder: Path) -> Any:
    own = settings.judges
    if not own.models:
        return None
    from muarl_cli.verification.judges import Committee

    address = partial(chat_model, flag="judges.base_url=")
    judges = [address(name, own.base_url, settings.prices, settings.max_usd, folder) for name in own.models]
    return Committee(judges, folder, settings.seed)


def refusals_of(review: Review) -> list[Reason]:
    """What a person's decision says against an episode."""
    why = f"{review.reviewer or 'a person'}: {review.reason or 'no reason given'}"
    return [] if review.accepted else [Reason(Filter.PERSON, "rejected", why)]


def write_card(
    folder: Path,
    episodes: Sequence[Episode],
    verdicts: Mapping[str, Mapping[str, Any]],
    scenarios: Sequence[Any],
    split: str,
    benchmarks: bool = False,
) -> dict[str, Any]:
    """Write `card.json` and `card.md` into the folder of a run that held these episodes; the card. With `benchmarks`,
    installed benchmarks that were never read are read now, once for all cards. Raises `MuarlError`."""
    known = {f"{s.source}:{s.name}": (s, s.tasks(split)) for s in scenarios}
    sets, missing = fingerprints(benchmarks)
    card = data_card(episodes, verdicts, known, sets) | {"not_compared": list(missing)}
    card["tools"] = disagreement(episodes, {task.task_hash: (s, task) for s, tasks in known.values() for task in tasks})
    replace_file(folder / CARD, (json.dumps(canonical(card), indent=2, sort_keys=True) + "\n").encode("ascii"))
    replace_file(folder / CARD_TEXT, _card_text(card).encode())
    return card


def _card_text(card: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    source = (files("muarl_cli.templates") / "report" / "card.md.jinja").read_text(encoding="utf-8")
    return (
        Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        .from_string(source)
        .render(card=card)
    )
