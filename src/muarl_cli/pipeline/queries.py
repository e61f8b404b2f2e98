"""Queries and personas written by a language model, each tried on the tools before it counts.

The writer is shown a small part of the database, the tools that are to be needed (those least needed so far) and a
twist; what it writes is carried out on a fresh world. Invariant: a query that is kept has reference calls that go
through, values that its customer can know, and is no near duplicate of one kept before; every refused one is on disk
with its reason.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.engines.chat import ChatSampling
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed
from muarl_cli.records.journal import Journal
from muarl_cli.users.state import render
from muarl_cli.verification.duplicates import Seen, shingles
from muarl_cli.verification.facts import unknown
from muarl_cli.worlds.written import written

QUERIES, REFUSED = "queries.jsonl", "refused_queries.jsonl"
MOST_TRIED = 2
"""times the wanted queries: a writer of which every second query is refused is the wrong one"""
TRIES = 3
MAX_TOKENS = 1200
NEAR = 0.7
"""instructions that share so much of their word triples are one query"""
EARLIER = 5
"""kept queries that the writer is shown, so that it writes another one"""
TWISTS: Mapping[str, tuple[float, str]] = {
    "plain": (0.25, "the customer wants one thing"),
    "several": (0.35, "the customer wants two or three different things, one after the other"),
    "mind_change": (
        0.25,
        "the customer changes their mind about one detail when asked to confirm; the calls have the last wish",
    ),
    "refusal": (
        0.15,
        "what the customer wants is against the policy: the calls only read what shows that it is not possible",
    ),
}
"""share of the queries, and what the writer is told"""
_OBJECT = re.compile(r"\{.*\}", re.S)


class Unusable(ValueError):
    """A query that cannot be used; says why."""


class Writer:
    """Writes queries for one scenario. `speaker` is the model; `record` is given each refused reply with its reason."""

    def __init__(
        self, scenario: Any, split: str, speaker: Any, record: Callable[[Mapping[str, Any]], None], seed: int
    ) -> None:
        self._scenario, self._split, self._speaker, self._record = scenario, split, speaker, record
        self._seed, self._seen = seed, Seen(NEAR)
        self._kept: list[str] = []
        self._needed: Counter[tuple[str, ...]] = Counter()
        self._toolbox = Toolbox(scenario.tools)
        acting = sorted(t.name for t in scenario.tools if t.klass in (ToolClass.READ, ToolClass.WRITE))
        self._pairs = list(combinations(acting, 2))

    def take(self, row: Mapping[str, Any]) -> None:
        """Count a query that is there already."""
        words = shingles(_as_events(row["instruction"]))
        self._seen.keep(str(row["id"]), words)
        self._kept.append(str(row["instruction"]))
        names = sorted({call["name"] for call in row["calls"]})
        self._needed.update(combinations(names, 2))

    async def write(self, number: int) -> dict[str, Any] | None:
        """Query `number` of the scenario as a row of `queries.jsonl`, None after three replies that are no use."""
        rng = random.Random(derive_seed(self._seed, self._scenario.name, number))
        pair = min(rng.sample(self._pairs, len(self._pairs)), key=lambda pair: self._needed[pair])
        twist = rng.choices(list(TWISTS), [share for share, _ in TWISTS.values()])[0]
        around = rng.choice(list(self._scenario.tasks(self._split)))
        memory = self._scenario.memory(around, derive_seed(self._seed, number))
        wrong = ""
        for attempt in range(TRIES):
            prompt = render(
                "query.jinja",
                policy=self._scenario.policy,
                tools=json.dumps([tool.openai()["function"] for tool in self._scenario.tools]),
                memory=json.dumps(memory),
                wanted=pair,
                twist=TWISTS[twist][1],
                earlier=self._kept[-EARLIER:],
                wrong=wrong,
            )
            parts = (self._seed, "query", self._scenario.name, number, attempt)
            sampling = ChatSampling(min(1.2, 0.9 + 0.1 * attempt), MAX_TOKENS, seed=derive_seed(*parts))
            text = (await self._speaker.reply([{"role": "user", "content": prompt}], sampling)).text
            try:
                row = self._checked(text, twist, around)
            except Unusable as error:
                wrong = str(error)
                place = {"scenario": self._name, "number": number, "attempt": attempt}
                self._record({**place, "why": wrong, "reply": text[:8000]})
                continue
            row |= {"id": f"{self._scenario.name}-written-{number:05d}", "number": number}
            self.take(row)
            return row
        return None

    @property
    def _name(self) -> str:
        return f"{self._scenario.source}:{self._scenario.name}"

    def _checked(self, text: str, twist: str, around: Any) -> dict[str, Any]:
        found = _OBJECT.search(text)
        try:
            value = json.loads(found.group()) if found else None
        except ValueError:
            value = None
        if not isinstance(value, dict) or not str(value.get("instruction") or "").strip():
            raise Unusable("it was no JSON object with an instruction")
        calls = value.get("calls")
        if not isinstance(calls, list) or not calls or not all(isinstance(c, dict) for c in calls):
            raise Unusable("it names no calls")
        instruction = " ".join(str(value["instruction"]).split())
        self._try(calls, instruction, twist, around)
        if (like := self._seen.like(shingles(_as_events(instruction)))) is not None:
            raise Unusable(f"it is nearly the same as {like[0]}")
        return {
            "scenario": self._name,
            "split": self._split,
            "instruction": instruction,
            "persona": " ".join(str(value.get("persona") or "").split()),
            "twist": twist,
            "calls": [{"name": c["name"], "arguments": c["arguments"]} for c in calls],
            "initial": dict(around.initial),
        }

    def _try(self, calls: list[dict[str, Any]], instruction: str, twist: str, around: Any) -> None:
        """Carry the calls out on a fresh world; raises `Unusable`."""
        world, known, writes = self._scenario.world(around), instruction, 0
        given = json.dumps([tool.openai() for tool in self._scenario.tools]) + self._scenario.policy
        for call in calls:
            name, arguments = str(call.get("name", "")), call.get("arguments")
            if not isinstance(arguments, dict):
                raise Unusable(f"the arguments of {name} are no object")
            if why := self._toolbox.problem(ToolCall("query", name, arguments)):
                raise Unusable(why)
            if missing := unknown(json.dumps(arguments), known, given):
                raise Unusable(f"{name} has {', '.join(missing)}, which neither the instruction nor a read gives")
            result = world.run(name, arguments)
            if not result.ok:
                raise Unusable(f"{name} is refused: {result.text}")
            known += "\n" + result.text
            writes += self._toolbox[name].klass is ToolClass.WRITE
        if (twist == "refusal") == bool(writes):
            raise Unusable("a refused wish has no writes" if writes else "no call changes anything")


def _as_events(text: str) -> tuple[Event, ...]:
    return (Event(0, Actor.USER, Kind.SAY, text),)


async def write_queries(
    scenarios: Sequence[Any], split: str, each: int, speaker: Any, folder: Path, seed: int
) -> list[Any]:
    """Have `each` queries written for every scenario; the scenarios with these as their tasks.

    Queries that are in the folder already are kept and count, so that an interrupted run goes on. Raises `MuarlError`
    for a scenario whose queries cannot be tried, or for which the writer gives none that can be used.
    """
    kept, refused = Journal(folder / QUERIES), Journal(folder / REFUSED)
    rows = kept.rows()

    async def fill(scenario: Any) -> int:
        if not (hasattr(scenario, "memory") and getattr(scenario, "executable", True)):
            raise MuarlError(
                f"queries for {scenario.source}:{scenario.name} cannot be written",
                why="they are tried on executable tools and a database, and it has none",
                next_step="leave queries=template there",
                code=ExitCode.CONFIG,
            )
        writer = Writer(scenario, split, speaker, refused.add, seed)
        own = [row for row in rows if row["scenario"] == f"{scenario.source}:{scenario.name}"]
        for row in own:
            writer.take(row)
        found, number = len(own), max((int(row["number"]) for row in own), default=-1) + 1
        while found < each and number < MOST_TRIED * each:
            if (new := await writer.write(number)) is not None:
                kept.add(new)
                found += 1
            number += 1
        return found

    try:
        counts = await asyncio.gather(*(fill(scenario) for scenario in scenarios))
    finally:
        kept.close()
        refused.close()
    if empty := [s.name for s, n in zip(scenarios, counts, strict=True) if not n]:
        raise MuarlError(
            f"no usable query for {', '.join(empty)}",
            where=str(folder / REFUSED),
            why="each reply of the writer was refused; the reasons stand there",
            next_step="use a better teacher model, which is also the writer",
            code=ExitCode.BAD_DATA,
        )
    written.cache_clear()
    return [written(str(folder / QUERIES), scenario.name) for scenario in scenarios]
