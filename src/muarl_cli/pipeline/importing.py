"""From redacted chats of real people to users: tasks of their shapes, rates and personas for simulated ones, and a log.

The folder holds `shapes.jsonl` (the tasks, as `FOLDER:scenario:imported`), `user.yaml` (for `--config`) and
`episodes.jsonl`: the chats as ordinary episodes of human users, which `users audit --against` reads.
Invariant: what looks unredacted is refused unless it is allowed, before anything is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import SCHEMA, End, Episode, Key, StateHashes
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.pipeline.parties import Talker
from muarl_cli.records.files import replace_file
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder
from muarl_cli.users.dialogue import Dialogue
from muarl_cli.users.facts import SEEN, FactBook, Facts
from muarl_cli.users.habits import NOT_ESTIMATED, personas_of, rates_of
from muarl_cli.users.observed import Reader, Request, shapes_of
from muarl_cli.users.transcripts import Chat, read_chats, unredacted
from muarl_cli.worlds.domain import Domain, builtin
from muarl_cli.worlds.imported import SHAPES, SPLIT, imported, shapes_text

STAGE = "import"
READ_SPLIT = "train"
"""the split whose values tell what the scenario's facts look like"""
LISTED = 5


def run(files: Sequence[Path], scenario: str, out: Path, allow_unredacted: bool, talk: Talker) -> dict[str, Any]:
    """Import the chats of `files` for a built-in scenario. Raises `MuarlError`."""
    domain = builtin(scenario.removeprefix("builtin:"))
    chats = read_chats(files)
    _refuse_unredacted(chats, allow_unredacted, talk)
    reader = Reader(domain.language, domain, READ_SPLIT)
    requests = {chat.id: reader.requests(chat) for chat in chats}
    read = [chat for chat in chats if requests[chat.id]]
    if not read:
        raise MuarlError(
            f"in none of {len(chats)} chats a request of {domain.name} was recognised",
            where=", ".join(str(file) for file in files),
            next_step=f"requests it knows: {', '.join(domain.language.intents)}; is --scenario right?",
            code=ExitCode.BAD_DATA,
        )
    settings = {"scenario": domain.name, "chats": digest([[m.actor.value, m.text] for c in chats for m in c.messages])}
    with RunFolder.open(out, STAGE, settings, free=frozenset()) as folder:
        episodes = [episode_of(domain, chat, requests[chat.id], folder.run_id) for chat in read]
        with EpisodeLog.open(out) as log:
            log.append_many([e for e in episodes if e.episode_id not in log.done_ids()])
        replace_file(out / SHAPES, shapes_text(domain.name, shapes_of(requests)))
        tasks = imported(str(out), domain.name).tasks(SPLIT)
        book = FactBook()
        talks = [(chat, Dialogue(e, facts)) for chat, e in zip(read, episodes, strict=True)
                 if isinstance(facts := book.of(e), Facts)]  # fmt: skip
        rates, personas = rates_of(talks), personas_of(read)
        replace_file(out / "user.yaml", _user_yaml(rates, personas, len(read)).encode())
        summary = {
            "chats": len(chats),
            "recognised": len(read),
            "tasks": len(tasks),
            "requests": dict(sorted(Counter(r.intent.name for some in requests.values() for r in some).items())),
            "changes": sum(bool(r.change) for some in requests.values() for r in some),
            "rates": {n.value: {"share": r.share, "happened": r.happened, "could": r.could} for n, r in rates.items()},
            "not_estimated": [name.value for name in NOT_ESTIMATED],
            "personas": personas,
            "artifact": artifact_hash(out),
        }
        place = str(out) if "/" in str(out) else f"./{out}"
        talk.say(f"next: muarl rollout --config {place}/user.yaml --tasks {place}:{domain.name}:{SPLIT}")
        talk.say(f"and:  muarl users audit LOG --against {out}")
        return folder.finish(summary)


def _refuse_unredacted(chats: Sequence[Chat], allowed: bool, talk: Talker) -> None:
    found = unredacted(chats)
    for one in found[:LISTED]:
        talk.warn(f"{one.place}: this looks like a person's {one.kind}")
    if found and not allowed:
        kinds = Counter(one.kind for one in found)
        raise MuarlError(
            f"{len(found)} places of the transcripts look unredacted",
            where=", ".join(one.place for one in found[:LISTED]) + (", ..." if len(found) > LISTED else ""),
            why=", ".join(f"{n} x {kind}" for kind, n in sorted(kinds.items())),
            next_step="redact them, as [EMAIL], [PHONE]; or --allow-unredacted where these are no real persons' data",
            code=ExitCode.BAD_DATA,
        )


def episode_of(domain: Domain, chat: Chat, requests: Sequence[Request], run_id: str) -> Episode:
    """The chat as an episode; openings of the same requests are told apart by the seed, as rollouts of a task are."""
    wanted = [request.intent.name for request in requests]
    key = Key(
        run_id,
        STAGE,
        0,
        f"{domain.source}:{domain.name}",
        chat.id,
        digest(wanted),
        SPLIT,
        0,
        int(digest(chat.id, 8), 16),
    )
    events = [Event(i, message.actor, Kind.SAY, message.text) for i, message in enumerate(chat.messages)]
    end = End(EndReason.USER_STOP, "the chat is over")
    events.append(Event(len(events), Actor.RUNNER, Kind.END, f"{end.reason.value}: {end.detail}"))
    turns = sum(message.actor is Actor.USER for message in chat.messages)
    return Episode(
        schema=SCHEMA,
        **key.identity,
        policy_hash="",
        agent={"kind": "transcript", "model": "", "revision": "", "weight_version": ""},
        user={
            "backend": "human",
            "model": "",
            "prompt_hash": "",
            "persona": "",
            "seed": key.seed,
            "injectors_fired": [],
        },
        events=tuple(events),
        end=end,
        valid=True,
        reward=None,
        state=StateHashes(),
        usage={"agent_tokens": 0, "user_tokens": 0, "prompt_tokens": 0, "turns": turns, "tool_calls": 0},
        detail={SEEN: [request.goal().to_json() for request in requests]},
    )


def _user_yaml(rates: Any, personas: Any, chats: int) -> str:
    head = (
        f"# The users of {chats} imported chats, for --config: rates of the scripted user's injectors, and weights of\n"
        "# the personas, which users that a model words take on (the scripted one has one voice).\n"
    )
    injectors = {name.value: round(rate.share, 4) for name, rate in rates.items() if rate.happened}
    return head + yaml.safe_dump({"user": {"injectors": injectors, "personas": personas}}, sort_keys=True)
