"""An episode as a person reads it in a terminal: who said what, what tools answered, which rule broke where.

Invariant: a line is a pair of a role and a text; how a role looks is decided by who prints it, and the text is
untrusted until that one has cleaned it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Event, Kind
from muarl_cli.reports.figures import decimal
from muarl_cli.reports.layers import FAIL, Judged, outcome_class


@dataclass(frozen=True)
class Line:
    """`role`: head, agent, user, world, runner, fail or note."""

    role: str
    text: str


def transcript(episode: Episode, judged: Judged) -> Iterator[Line]:
    """The lines of an episode, in order: what it is, what happened, how it ended."""
    yield Line("head", f"{episode.episode_id}  {episode.scenario}:{episode.split}:{episode.task_id}")
    reward = "no reward" if episode.reward is None else f"reward {decimal(episode.reward)}"
    where = f"{episode.stage}, step {episode.step}, rollout {episode.rollout}, attempt {episode.attempt}"
    yield Line("note", f"{outcome_class(episode, judged)}, {reward}; {where}")
    layers = ", ".join(f"{name} {verdict}" for name, verdict in judged.layers.items())
    yield Line("note", f"layers: {layers or 'not scored'}")
    known = {event.i for event in episode.events}
    for event in episode.events:
        if event.thought:
            yield Line("note", f"agent thinks  {event.thought}")
        yield _event(event, episode)
        for finding in judged.findings:
            if finding["verdict"] == FAIL and finding["at"] == event.i:
                yield _broken(finding["layer"], finding["rule"], finding["why"])
    for finding in judged.findings:
        if finding["verdict"] == FAIL and finding["at"] not in known:
            yield _broken(finding["layer"], finding["rule"], finding["why"])
    usage = ", ".join(f"{name} {value}" for name, value in episode.usage.items())
    yield Line("note", f"usage: {usage}")
    if episode.detail:
        yield Line("note", f"scorer: {json.dumps(dict(episode.detail), ensure_ascii=False)}")


def _event(event: Event, episode: Episode) -> Line:
    tags = f" [{', '.join(event.tags)}]" if event.tags else ""
    call = event.call
    if event.kind is Kind.END:
        detail = f": {episode.end.detail}" if episode.end.detail else ""
        return Line("runner", f"end{tags}  {episode.end.reason.value}{detail}")
    if call is None:
        return Line(event.actor.value, f"{event.actor.value}{tags}  {event.text}")
    klass = call.klass.value if call.klass else "unknown tool"
    if event.kind is Kind.CALL:
        given = event.text if call.arguments is None else json.dumps(dict(call.arguments), ensure_ascii=False)
        return Line(event.actor.value, f"{event.actor.value} calls{tags}  {call.name} ({klass})  {given}")
    wrote = f"  wrote {', '.join(f'{w.entity} {w.id}' for w in call.writes)}" if call.writes else ""
    return Line("world", f"{'error' if event.kind is Kind.ERROR else 'result'}{tags}  {call.name}  {event.text}{wrote}")


def _broken(layer: str, rule: str, why: str) -> Line:
    return Line("fail", f"  broken: {layer} · {rule}" + (f": {why}" if why else ""))
