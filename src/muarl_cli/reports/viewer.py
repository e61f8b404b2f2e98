"""The data of the episode viewer: a small index that is always there, and bodies that are unpacked when looked at.

Invariant: everything the page shows of an episode is in here as text, made visible (`figures.visible`) and never as
markup; the same runs give the same bytes. Bodies are compressed in chunks, so that a thousand episodes stay a few MB
and opening the page costs the index alone.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import Owner
from muarl_cli.errors import MuarlError
from muarl_cli.reports.advantages import advantages
from muarl_cli.reports.figures import visible
from muarl_cli.reports.layers import FAIL, LAYERS, NA, PASS, Judged, episode_row
from muarl_cli.reports.replay import state_diffs
from muarl_cli.reports.run_view import RunView

CHUNK = 40
"""episodes that are unpacked together"""
LONGEST_TEXT = 20_000
_LETTERS = {PASS: "p", FAIL: "f", NA: "n"}


@dataclass(frozen=True)
class ViewerData:
    """`index` as JSON text that is safe inside a script element; `chunks` as base64 of gzip of JSON lists of bodies."""

    index: str
    chunks: tuple[str, ...]
    episodes: int
    with_tokens: int


def viewer_data(runs: Sequence[RunView], most_tokens: int, most: int = 0) -> ViewerData:
    """Index and bodies of the episodes of `runs`, of each run at most its part of `most` (0 = all), evenly spread;
    token rows of at most `most_tokens` of them."""
    entries: list[dict[str, Any]] = []
    bodies: list[dict[str, Any]] = []
    with_tokens = 0
    for number, run in enumerate(runs):
        everything = [*run.own, *(e for floor in run.floors.values() for e in floor)]
        chosen = _spread(everything, -(-most // len(runs)) if most else len(everything))
        diffs = state_diffs(chosen, run.tasks)
        trained_with = advantages(run)
        tokens = _tokens(run, chosen, -(-most_tokens // len(runs)))
        with_tokens += len(tokens)
        for episode in chosen:
            key = episode.episode_id
            judged = run.judged.get(key, Judged({}))
            entries.append(_entry(number, run, episode, judged, key in tokens))
            body = _body(episode, judged, diffs.get(key, {}))
            if key in trained_with:
                body["advantage"] = trained_with[key]
            if key in tokens:
                body["tokens"] = tokens[key]
            bodies.append(body)
    chunks = tuple(_packed(bodies[i : i + CHUNK]) for i in range(0, len(bodies), CHUNK))
    index = {"chunk": CHUNK, "layers": LAYERS, "runs": [run.name for run in runs], "episodes": entries}
    return ViewerData(script_json(_visible(index)), chunks, len(entries), with_tokens)


def script_json(value: Any) -> str:
    """JSON that cannot leave a script element: ASCII, and none of `<`, `>`, `&` in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _entry(number: int, run: RunView, episode: Episode, judged: Judged, tokens: bool) -> dict[str, Any]:
    """What the list and the filters know of an episode."""
    return {
        "run": number,
        **episode_row(episode, judged),
        "key": f"{episode.task_hash}:{episode.task_id}",
        "scenario": episode.scenario,
        "family": run.families.get(episode.task_hash, ""),
        "layers": "".join(_LETTERS.get(judged.layers.get(name, ""), "-") for name in LAYERS),
        "rules": list(judged.broken),
        "user": " ".join(str(episode.user.get(key) or "") for key in ("backend", "model")).strip(),
        "tokens": tokens,
    }


def _body(episode: Episode, judged: Judged, diffs: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    at: dict[int, list[dict[str, Any]]] = {}
    for finding in judged.findings:
        if finding["verdict"] != NA:
            place = finding["at"] if isinstance(finding["at"], int) else -1
            at.setdefault(place, []).append({name: finding[name] for name in ("rule", "layer", "verdict", "why")})
    events = []
    known = {event.i for event in episode.events}
    for event in episode.events:
        row: dict[str, Any] = {"i": event.i, "actor": event.actor.value, "kind": event.kind.value}
        if event.text:
            row["text"] = _cut(event.text)
        if event.call is not None:
            call = event.call
            row["call"] = {"name": call.name, "class": call.klass.value if call.klass else "unknown tool"}
            if call.arguments is not None:
                row["call"]["arguments"] = {str(k): _value(v) for k, v in call.arguments.items()}
            if call.writes:
                row["call"]["writes"] = [
                    f"{w.entity} {w.id}" + (f" (owner {w.owner})" if w.owner else "") for w in call.writes
                ]
        if event.tags:
            row["tags"] = list(event.tags)
        if event.i in diffs:
            row["diff"] = diffs[event.i]
        if event.i in at:
            row["findings"] = at[event.i]
        events.append(row)
    return {
        "events": events,
        "end": {"reason": episode.end.reason.value, "detail": _cut(episode.end.detail)},
        "findings": [finding for place in at if place not in known for finding in at[place]],
        "facts": {
            "episode": episode.episode_id,
            "task": episode.task_id,
            "agent": " ".join(str(v) for v in (episode.agent.get("kind"), episode.agent.get("model")) if v),
            "user": " ".join(str(v) for v in (episode.user.get("backend"), episode.user.get("model")) if v),
            "persona": str(episode.user.get("persona") or ""),
            "injectors": ", ".join(str(v) for v in episode.user.get("injectors_fired") or ()),
            "end state": "" if not episode.state.gold else ("as wanted" if _same_state(episode) else "not as wanted"),
            "detail": json.dumps(dict(episode.detail), ensure_ascii=False) if episode.detail else "",
            "usage": ", ".join(f"{name} {value}" for name, value in episode.usage.items()),
        },
    }


def _same_state(episode: Episode) -> bool:
    return episode.state.final == episode.state.gold


def _tokens(run: RunView, episodes: Sequence[Episode], most: int) -> dict[str, list[dict[str, Any]]]:
    """Token rows by episode id, as columns: pieces of text (or ids), owners, log-probabilities of sampled ones."""
    chosen = _spread([e.episode_id for e in episodes if e.episode_id in run.tokens], most)
    if not chosen:
        return {}
    from muarl_cli.records.tokens import TokenShards

    shards, piece = TokenShards(run.folder), _pieces(run)
    found: dict[str, list[dict[str, Any]]] = {}
    for key in chosen:
        try:
            rows = shards.of(key, run.tokens[key])
        except (MuarlError, ImportError):  # rows that are gone or damaged: the viewer says that it has none
            continue
        found[key] = [
            {
                "text": [piece(token) for token in row.ids],
                "owner": list(row.owners),
                "logprob": [
                    round(value, 3) if owner == Owner.AGENT else None
                    for value, owner in zip(row.logprobs, row.owners, strict=True)
                ],
            }
            for row in rows
        ]
    return found


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most `most` of them, evenly spread, in order."""
    return [items[i * len(items) // most] for i in range(most)] if most < len(items) else items


def _pieces(run: RunView) -> Any:
    """Token id to text, with the tokenizer of the run's checkpoint where that is at hand; else the id itself."""
    folder = tokenizer_folder(run)
    if folder is None:
        return str
    try:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # not installed, or a file it does not understand
        return str
    known: dict[int, str] = {}

    def piece(token: int) -> str:
        if token not in known:
            known[token] = tokenizer.decode([token], skip_special_tokens=False) or f"<{token}>"
        return known[token]

    return piece


def tokenizer_folder(run: RunView) -> Path | None:
    """The folder with the tokenizer that this run's tokens were made with, if it is still there."""
    from muarl_cli.records.checkpoint import resolve_model_path

    for place in (run.folder, Path(str(run.settings.get("model") or ""))):
        try:
            if not place.is_dir():
                continue
            folder = resolve_model_path(place, lambda line: None)
        except MuarlError:
            continue
        if (folder / "tokenizer.json").is_file():
            return folder
    return None


def _value(value: Any) -> str:
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text):,} characters)"


def _packed(bodies: Sequence[Mapping[str, Any]]) -> str:
    text = json.dumps(_visible(list(bodies)), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), 9, mtime=0)).decode("ascii")


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(key): _visible(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(item) for item in value]
    return value
