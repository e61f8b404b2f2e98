"""Episodes to write, and a writer to kill: shared by the tests of this folder.

Run as a program it appends episodes 0..N-1 to a log and prints the index of each one once it is acknowledged.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import SCHEMA, End, Episode, Key, StateHashes
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass, Write
from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.records.log import EpisodeLog


def make_episode(index: int, *, size: int = 0, rows: bool = False, reason: EndReason = EndReason.USER_STOP) -> Episode:
    """Episode number `index`, always the same one, padded by `size` characters of talk."""
    key = Key(
        "run", "rollout", index // 8, "library", f"t{index}", f"hash{index:06d}", "train", index % 8, 1000 + index
    )
    call = CallRecord("c1", "renew_loan", {"loan": f"L{index}", "days": 14}, ToolClass.WRITE)
    events = (
        Event(0, Actor.AGENT, Kind.SAY, "Hello.", tags=("greeting",)),
        Event(1, Actor.USER, Kind.SAY, f"Renew L{index}.\u2028{'x' * size}"),
        Event(2, Actor.AGENT, Kind.CALL, "", call),
        Event(3, Actor.WORLD, Kind.RESULT, "ok", replace(call, ok=True, writes=(Write("loan", f"L{index}", "p1"),))),
        Event(4, Actor.RUNNER, Kind.END, reason.value),
    )
    ids = tuple(range(index, index + 12))
    row = TokenRow(ids, (0, 1, 2, 3) * 3, tuple(-0.5 * (i % 4 == 3) for i in range(12)))
    return Episode(
        schema=SCHEMA,
        **key.identity,
        policy_hash="p",
        agent={"kind": "oracle", "model": "", "revision": "", "weight_version": 0},
        user={
            "backend": "scripted",
            "model": "",
            "prompt_hash": "",
            "persona": "calm",
            "seed": 3,
            "injectors_fired": [],
        },
        events=events,
        end=End(reason),
        valid=reason.valid,
        reward=float(index % 2) if reason.valid else None,
        state=StateHashes("a", "b", "b"),
        usage={"agent_tokens": 12, "user_tokens": 3, "prompt_tokens": 40, "turns": 2 + index, "tool_calls": 1},
        detail={"db": index % 2},
        volatile={"seconds": 0.1 * index},
        rows=(row,) if rows else (),
    )


def write_missing(folder: Path, count: int, size: int, rows: bool) -> None:
    with EpisodeLog.open(folder) as log:
        print("open", flush=True)
        for index in range(count):
            if log.append(make_episode(index, size=size, rows=rows)):
                print(index, flush=True)


if __name__ == "__main__":
    write_missing(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "rows")
