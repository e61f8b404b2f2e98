"""TAU2 retail at 32 in flight, agent and user both behind a server with 50 ms latency; prints one JSON object.

    python benchmarks/tau2_served.py [--in-flight 32] [--latency 0.05] [--repeat 2] [--upstream]

The peer, in the same run, is a bare pooled HTTP client that sends the very same requests with as many in flight and
does nothing with the answers. `ratio` is our time over its time; CPU is that of this process alone, the scripted server
has its own. `peer_episodes_per_second` shows what the machine and the server allow at all.

`--upstream` races TAU2's own runner instead (`peers/tau2_orchestrator.py`): a checkout, MUARL_TAU2_ROOT, run by an
interpreter that has its dependencies, MUARL_TAU2_PYTHON; `make race` gets both. One process a side plays the same tasks
against the same server, in turn. Alike, and checked in every pass: how often agent and user replied in each
conversation, the requests that the server counted, the rewards. Not alike: each side words its own requests (the same
policy, tools and history; `request_bytes` says how long they are), and the checkout has the database of its revision.

`over_runner` is our calls a second over those of its `run_tasks`, which does the same work as ours: worlds,
conversations, rewards. `ratio` is that over its orchestrators alone, their worlds built before the clock runs and
nothing graded, while ours does both on the clock. Medians of the pairs. Neither side writes anything to disk.
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
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
MODELS = ("fake-agent", "fake-user")
sys.path.insert(0, str(TESTS))

from fakes.episodes import LIMITS, Played, play_all  # noqa: E402

from muarl_cli.agents.openai_chat import OpenAIAgents  # noqa: E402
from muarl_cli.benchmarks.checkouts import python_of, required_root  # noqa: E402
from muarl_cli.benchmarks.tau2 import tau2_scenario  # noqa: E402
from muarl_cli.conversation.events import Actor  # noqa: E402
from muarl_cli.engines.chat import ChatModel  # noqa: E402
from muarl_cli.engines.wire import Wire, resolve_address  # noqa: E402
from muarl_cli.users.llm import LlmUsers  # noqa: E402


class Recording(ChatModel):
    """A chat model that keeps the bodies of its requests, for the peer to send again."""

    bodies: list[bytes]

    async def reply(self, messages: Any, sampling: Any, tools: Any = ()) -> Any:
        from muarl_cli.engines.chat import request_body

        self.bodies.append(json.dumps(request_body(self.wire.address, self.model, messages, sampling, tools)).encode())
        return await super().reply(messages, sampling, tools)


async def ours(url: str, scenario: Any, tasks: Any, in_flight: int, keep: list[bytes] | None) -> list[Played]:
    async with Wire(resolve_address(url, {})) as wire:
        made = Recording if keep is not None else ChatModel
        chats = made(wire, MODELS[0]), made(wire, MODELS[1])
        for chat in chats:
            if keep is not None:
                chat.bodies = keep  # type: ignore[attr-defined]
        agents = OpenAIAgents(chats[0], temperature=0.0, max_turn_tokens=1024)
        users = LlmUsers(
            chats[1], scenario.user_prompt, temperature=0.0, max_tokens=256, rules=scenario.user_guidelines
        )
        return await play_all(scenario, tasks, agents, users, in_flight=in_flight, limits=LIMITS)


async def bare(url: str, bodies: list[bytes], in_flight: int) -> None:
    import aiohttp

    queue = iter(bodies)
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def worker() -> None:
            for body in queue:
                async with session.post(
                    f"{url}/chat/completions", data=body, headers={"Content-Type": "application/json"}
                ) as answer:
                    await answer.read()

        await asyncio.gather(*(worker() for _ in range(in_flight)))


@dataclass(frozen=True)
class Pass:
    """Some conversations, held: time, CPU of the process that held them, and by task the replies of agent and user
    and the reward (None where it was not asked for)."""

    seconds: float
    cpu: float
    played: dict[str, tuple[int, int, float | None]]
    request_bytes: int = 0
    """of a request on average, as the server received them"""

    @property
    def talks(self) -> dict[str, tuple[int, int]]:
        """Replies of agent and user by task."""
        return {task: (agent, user) for task, (agent, user, _) in self.played.items()}

    @property
    def calls(self) -> int:
        return sum(map(sum, self.talks.values()))

    @property
    def rewards(self) -> dict[str, float | None]:
        return {task: reward for task, (_, _, reward) in self.played.items()}

    @property
    def solved(self) -> int | None:
        graded = [reward for reward in self.rewards.values() if reward is not None]
        return sum(reward == 1 for reward in graded) if graded else None


Pair = tuple[Pass, Pass]
"""ours and the peer's"""


def replies(one: Played) -> tuple[int, int]:
    """How often agent and user were asked: a turn is one call or one saying here, the greeting nobody's."""
    said = [event.actor for event in one.transcript.events if "greeting" not in event.tags]
    return said.count(Actor.AGENT), said.count(Actor.USER)


def our_pass(url: str, scenario: Any, tasks: Any, in_flight: int) -> Pass:
    clock, cpu = time.perf_counter(), time.process_time()
    held = asyncio.run(ours(url, scenario, tasks, in_flight, None))
    seconds, spent = time.perf_counter() - clock, time.process_time() - cpu
    return Pass(seconds, spent, {one.task.id: (*replies(one), one.outcome.reward) for one in held})


class Upstream:
    """TAU2's own runner, waiting in its process to be told to play."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.versions = self._said()

    def play(self, graded: bool, first: int) -> Pass:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"graded": graded, "first": first}) + "\n")
        self.process.stdin.flush()
        said = self._said()
        return Pass(said["seconds"], said["cpu"], {task: tuple(one) for task, one in said["played"].items()})

    def _said(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "upstream's process has ended; its last words stand above"
        return dict(json.loads(line))


@contextmanager
def upstream(url: str, records: Sequence[Any], in_flight: int) -> Iterator[Upstream]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(records))
        file.flush()
        program = str(HERE / "peers" / "tau2_orchestrator.py")
        command = [python_of("tau2"), program, str(required_root("tau2")), file.name, url, "--models", *MODELS]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([*command, "--in-flight", str(in_flight)], text=True, **pipes)
        try:
            yield Upstream(process)
        finally:
            process.kill()
            process.wait()


@contextmanager
def served(latency: float) -> Iterator[str]:
    """The scripted server; its base URL."""
    environ = {key: value for key, value in os.environ.items() if key != "MUARL_TAU2_ROOT"}  # the package's retail
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "fakes" / "openai_server.py"), "--latency", str(latency)],
        stdout=subprocess.PIPE,
        text=True,
        env={**environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def against_bare(url: str, scenario: Any, in_flight: int, repeat: int) -> dict[str, Any]:
    """All tasks, and the same requests from the bare client."""
    tasks = scenario.tasks("base")
    bodies: list[bytes] = []
    asyncio.run(ours(url, scenario, tasks, in_flight, bodies))  # warm, and what the peer will send
    rows = []
    for _ in range(repeat):
        one = our_pass(url, scenario, tasks, in_flight)
        clock = time.perf_counter()
        asyncio.run(bare(url, bodies, in_flight))
        rows.append((one.seconds, one.cpu, time.perf_counter() - clock, one.solved))
    seconds, spent, peer, solved = min(rows)
    return {
        "episodes": len(tasks),
        "solved": solved,
        "model_turns": len(bodies),
        "in_flight": in_flight,
        "episodes_per_second": len(tasks) / seconds,
        "cpu_ms_per_turn": 1000 * spent / len(bodies),
        "peer_episodes_per_second": len(tasks) / peer,
        "ratio": seconds / peer,
    }


def against_upstream(url: str, scenario: Any, in_flight: int, repeat: int) -> dict[str, Any]:
    """One round of tasks by TAU2's own runner, three by its orchestrators alone, and each by us just before."""
    tasks = scenario.tasks("base")[: 3 * in_flight]
    known = {str(record["id"]): record for record in scenario.package.records}
    rounds: dict[str, list[Pair]] = {"runner": [], "alone": []}
    our_pass(url, scenario, tasks[:4], in_flight)  # what is loaded at the first call
    with upstream(url, [known[task.id] for task in tasks], in_flight) as theirs:
        for _ in range(repeat):
            for graded, first in ((True, in_flight), (False, len(tasks))):
                mine = counted(url, partial(our_pass, url, scenario, tasks[:first], in_flight))
                other = counted(url, partial(theirs.play, graded, first))
                assert mine.talks == other.talks, sorted(mine.talks.items() ^ other.talks.items())[:6]
                assert not graded or mine.rewards == other.rewards, (mine.rewards, other.rewards)
                rounds["runner" if graded else "alone"].append((mine, other))
    return {
        "ratio": over(rounds["alone"]),
        "over_runner": over(rounds["runner"]),
        **{name: figures(pairs) for name, pairs in rounds.items()},
        "in_flight": in_flight,
        "load": round(os.getloadavg()[0], 1),
        "versions": theirs.versions,
    }


def counted(url: str, play: Callable[[], Pass]) -> Pass:
    """A pass whose requests the server has counted too."""
    before = stats(url)
    one = play()
    after = stats(url)
    asked = after["requests"] - before["requests"]
    assert asked == one.calls, f"the server counted {asked} requests, the conversations have {one.calls} replies"
    return replace(one, request_bytes=(after["bytes"] - before["bytes"]) // asked)


def stats(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return dict(json.load(answer))


def over(pairs: Sequence[Pair]) -> float:
    """Our calls a second over the peer's: the calls are the same, so its time over ours."""
    return round(statistics.median(other.seconds / mine.seconds for mine, other in pairs), 2)


def figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The same of both sides, medians."""
    sides: dict[str, Any] = {"episodes": len(pairs[0][0].played), "calls": pairs[0][0].calls}
    for name, passes in zip(("ours", "theirs"), zip(*pairs, strict=True), strict=True):
        sides[name] = {
            "calls_per_s": round(statistics.median(one.calls / one.seconds for one in passes), 1),
            "cpu_ms_per_call": round(statistics.median(1000 * one.cpu / one.calls for one in passes), 2),
            "request_bytes": passes[0].request_bytes,
            "solved": passes[0].solved,
        }
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--upstream", action="store_true", help="race TAU2's own runner, from a checkout")
    options = parser.parse_args()
    race = against_upstream if options.upstream else against_bare
    with served(options.latency) as url:
        print(json.dumps(race(url, tau2_scenario("retail"), options.in_flight, options.repeat)))


if __name__ == "__main__":
    main()
