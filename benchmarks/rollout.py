"""The rollout stage against a bare HTTP client that makes the very same calls; prints one JSON object.

    python benchmarks/rollout.py [--turns 9 33] [--in-flight 32] [--latency 0.05] [--repeat 3] [--peer PYTHON]

Agent and user are both behind a local server, a process of its own that takes its time over each reply. A turn is one
reply of a model, whoever it plays. Conversations are those of the built-in retail scenario: the careful agent's moves,
padded with look-ups and requests to wait until each has exactly the wanted number of turns, and the wordings of a
scripted user. They are held once without a server, to write down each request and its reply; the server then knows
replies by the request's bytes, so that a conversation that went otherwise would be noticed. What is timed is what the
stage does after its tasks are loaded: play, grade, log to disk, read back.

The peer, in the same run and in turn, sends the same bytes over one pooled session with as many in flight and only
reads the answers. `ratio` is its time over ours, the median of the repeats; CPU is that of one process, the server's
own is not in it. `flat` is the speed at the most turns over that at the fewest. With `--peer PYTHON`, an environment
that has TRL and aiohttp, TRL's asynchronous loop does as many replies of prompts as long (`peers/trl_rollout.py`);
`over_peer` is our speed over its.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from muarl_cli.cli.console import Talk
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.engines.wire import Wire
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline import rollout
from muarl_cli.pipeline.play import Job, job
from muarl_cli.pipeline.policy import open_agents
from muarl_cli.records.log import EpisodeLog
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fakes import recorded as recording  # noqa: E402
from fakes.wording import plan_of  # noqa: E402

SEED = 1
WAITS = 4
"""requests to wait in one conversation, at most: a user has patience for six"""
CALLS = 1500
"""a timed pass makes at least this many"""
Reply = dict[str, Any]


@dataclass(frozen=True)
class Played:
    """One way of doing the calls, timed."""

    seconds: float
    cpu: float


class Scripted(Wire):
    """A wire with nobody at its end: answers at once from the script, and writes down what was asked."""

    agent: ClassVar[dict[int, Reply]] = {}
    """by the seed of the request"""
    seen: ClassVar[dict[bytes, bytes]] = {}

    async def _once(self, method: str, path: str, payload: bytes | None) -> dict[str, Any]:
        if payload is None:
            return {"data": []}
        body = json.loads(payload)
        message = Scripted.agent.get(body["seed"]) or {"content": plan_of(body)}
        reply = completion(body["model"], message)
        Scripted.seen[payload] = json.dumps(reply).encode()
        return reply


def completion(model: str, message: Reply) -> Reply:
    words = len(json.dumps(message).split())
    usage = {"prompt_tokens": 1000, "completion_tokens": words, "total_tokens": 1000 + words}
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}


def settings_of(url: str, in_flight: int, episodes: int, **flags: Any) -> Any:
    common = {"tasks": ["builtin:retail:train"], "max_tasks": episodes, "group": 1, "in_flight": in_flight}
    served = {"agent": "policy", "model": "agent", "base_url": url, "limits.max_turns": 200}
    served |= {"user.backend": "llm", "user.model": "user", "user.base_url": url}
    flags = common | (flags or served)
    return resolve(Stage.ROLLOUT, flags={key: (key, value) for key, value in flags.items()}, environ={}).settings


def jobs_of(settings: Any) -> list[Job]:
    tasks = rollout.chosen(settings, settings.tasks)
    return [job("bench", rollout.STAGE, 0, scenario, task, 0, SEED) for scenario, task in tasks]


def hold(settings: Any, jobs: list[Job]) -> tuple[list[Episode], Played]:
    """The jobs as the stage plays them."""
    talk = Talk(json=True)
    with tempfile.TemporaryDirectory() as name, EpisodeLog.open(Path(name)) as log:
        agents = open_agents(settings, Path(name), talk)
        began = time.perf_counter(), time.process_time()
        episodes = asyncio.run(rollout.play_all(jobs, agents, settings, Path(name), log, talk))
        return episodes, Played(time.perf_counter() - began[0], time.process_time() - began[1])


def look_ups(episodes: Sequence[Episode]) -> list[Any]:
    """Calls of these conversations that looked at a customer, each once."""
    events = (event for episode in episodes for event in episode.events)
    calls = [e.call for e in events if e.kind is Kind.CALL and e.call and e.call.name == "get_customer"]
    return list({str(call.arguments): call for call in calls}.values())


def script_of(episode: Episode, turns: int, others: Sequence[Any]) -> list[Reply] | None:
    """The agent's replies that make a conversation of `turns` replies out of this one, with look-ups out of `others`;
    None where it is too long."""
    moves = [e for e in episode.events if e.actor is Actor.AGENT and "greeting" not in e.tags]
    said = sum(e.actor is Actor.USER and e.kind is Kind.SAY for e in episode.events)
    missing = turns - len(moves) - said
    if missing < 0:
        return None
    waits = min(WAITS, missing // 4)
    extra = [_called("c", call.name, call.arguments) for call in others[: missing - 2 * waits]]
    pauses = [{"content": "one moment please."}] * waits
    first, rest = [_reply(e) for e in moves[:1]], [_reply(e) for e in moves[1:]]
    return [*first, *extra[::2], *pauses, *extra[1::2], *rest]


def _reply(event: Any) -> Reply:
    if event.call is None:
        return {"content": event.text}
    return _called("c", event.call.name, event.call.arguments)


def _called(call_id: str, name: str, arguments: Any) -> Reply:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"content": None, "tool_calls": [{"id": call_id, "type": "function", "function": function}]}


def recorded(turns: int, in_flight: int) -> tuple[list[Job], dict[bytes, bytes]]:
    """Jobs whose conversations have exactly `turns` replies, and what is asked and answered in them."""
    every = jobs_of(settings_of("", in_flight, 0, agent="careful"))
    episodes, _ = hold(settings_of("", in_flight, 0, agent="careful"), every)
    others = look_ups(episodes)
    scripts = [(one, script_of(episode, turns, others)) for one, episode in zip(every, episodes, strict=True)]
    scripts = [(one, script) for one, script in scripts if script is not None]
    count = -(-CALLS // turns // in_flight) * in_flight  # whole rounds: the tail would be another measurement
    chosen = [scripts[n % len(scripts)] for n in range(count)]
    jobs = [_again(one, n // len(scripts)) for n, (one, _) in enumerate(chosen)]
    Scripted.agent, Scripted.seen = {}, {}
    for one, (_, script) in zip(jobs, chosen, strict=True):
        Scripted.agent |= {derive_seed(one.key.seed, "agent", n) % (1 << 31): move for n, move in enumerate(script)}
    from muarl_cli.engines import wire

    wire.Wire = Scripted  # type: ignore[misc]
    try:
        held, _ = hold(settings_of("http://127.0.0.1:9/v1", in_flight, 0), jobs)
    finally:
        wire.Wire = Wire  # type: ignore[misc]
    assert all(e.reward == 1 for e in held), [e.end for e in held if e.reward != 1][:3]
    assert len(Scripted.seen) == turns * len(jobs), (len(Scripted.seen), turns * len(jobs))
    return jobs, Scripted.seen


def _again(one: Job, rollout: int) -> Job:
    seed = derive_seed(SEED, 0, one.task.task_hash, rollout)
    return replace(one, key=replace(one.key, rollout=rollout, seed=seed))


def send(url: str, bodies: Sequence[bytes], in_flight: int) -> Played:
    """The bare client."""
    import aiohttp

    waiting = iter(bodies)
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json", "Accept": "application/json"}

    async def worker(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as answer:
                assert answer.status == 200
                await answer.read()

    async def everyone() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:
            await asyncio.gather(*(worker(session) for _ in range(in_flight)))

    began = time.perf_counter(), time.process_time()
    asyncio.run(everyone())
    return Played(time.perf_counter() - began[0], time.process_time() - began[1])


@contextmanager
def server(replies: dict[bytes, bytes], latency: float) -> Iterator[str]:
    """A process that knows these replies; its base URL."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        recording.write(Path(file.name), replies)
        command = [sys.executable, str(ROOT / "tests" / "fakes" / "recorded.py"), file.name, str(latency)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(30)


def peer(python: str, turns: int, in_flight: int, latency: float, bodies: Sequence[bytes]) -> dict[str, Any]:
    """TRL's loop with prompts as long as the agent's (a token is four bytes), as its program reports."""
    sizes = [len(body) // 4 for body in bodies if body.startswith(b'{"model":"agent"')]
    shape = {"turns": turns, "episodes": in_flight * max(1, round(CALLS / turns / in_flight)), "in-flight": in_flight}
    shape |= {"first": min(sizes), "tokens": max(1, 2 * round((statistics.mean(sizes) - min(sizes)) / turns))}
    flags = [part for name, value in shape.items() for part in (f"--{name}", str(value))]
    program = str(ROOT / "benchmarks" / "peers" / "trl_rollout.py")
    done = subprocess.run([python, program, *flags, "--latency", str(latency)], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1])) | shape


def measured(turns: int, in_flight: int, latency: float, repeat: int, python: str) -> dict[str, Any]:
    """Ours and the bare client in turn, at one length."""
    jobs, replies = recorded(turns, in_flight)
    bodies = list(replies)
    with server(replies, latency) as url:
        settings = settings_of(url, in_flight, 0)
        send(url, bodies[: 2 * in_flight], in_flight)
        hold(settings, jobs[:in_flight])
        pairs = [(hold(settings, jobs)[1], send(url, bodies, in_flight)) for _ in range(repeat)]
    calls = len(bodies)
    row: dict[str, Any] = {
        "turns": turns,
        "episodes": len(jobs),
        "calls": calls,
        "request_bytes": round(statistics.mean(map(len, bodies))),
        "calls_per_s": round(statistics.median(calls / ours.seconds for ours, _ in pairs)),
        "bare_calls_per_s": round(statistics.median(calls / bare.seconds for _, bare in pairs)),
        "ratio": round(statistics.median(bare.seconds / ours.seconds for ours, bare in pairs), 3),
        "cpu_ms_per_call": round(1000 * statistics.median(ours.cpu / calls for ours, _ in pairs), 3),
        "bare_cpu_ms_per_call": round(1000 * statistics.median(bare.cpu / calls for _, bare in pairs), 3),
    }
    if python:
        row["peer"] = peer(python, turns, in_flight, latency, bodies)
        row["over_peer"] = round(row["calls_per_s"] / row["peer"]["calls_per_s"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, nargs="+", default=[9, 33])
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer", default="", help="interpreter of an environment that has TRL")
    options = parser.parse_args()
    rows = [
        measured(turns, options.in_flight, options.latency, options.repeat, options.peer) for turns in options.turns
    ]
    peers = {"over_peer": min(row["over_peer"] for row in rows)} if options.peer else {}
    print(
        json.dumps(
            peers
            | {
                "rows": rows,
                "ratio": min(row["ratio"] for row in rows),
                "calls_per_s": min(row["calls_per_s"] for row in rows),
                "cpu_ms_per_call": max(row["cpu_ms_per_call"] for row in rows),
                "flat": round(rows[-1]["calls_per_s"] / rows[0]["calls_per_s"], 3),
                "in_flight": options.in_flight,
                "latency": options.latency,
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
