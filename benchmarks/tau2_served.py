"""TAU2 retail at 32 in flight, agent and user both behind a server with 50 ms latency; prints one JSON object.

    python benchmarks/tau2_served.py [--in-flight 32] [--latency 0.05] [--repeat 2]

The peer, in the same run, is a bare pooled HTTP client that sends the very same requests with as many in flight and
does nothing with the answers. `ratio` is our time over its time; CPU is that of this process alone, the scripted server
has its own. `peer_episodes_per_second` shows what the machine and the server allow at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from fakes.episodes import LIMITS, play_all  # noqa: E402

from muarl_cli.agents.openai_chat import OpenAIAgents  # noqa: E402
from muarl_cli.benchmarks.tau2 import tau2_scenario  # noqa: E402
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


async def ours(url: str, scenario: Any, tasks: Any, in_flight: int, keep: list[bytes] | None) -> list[float]:
    async with Wire(resolve_address(url, {})) as wire:
        made = Recording if keep is not None else ChatModel
        chats = made(wire, "fake-agent"), made(wire, "fake-user")
        for chat in chats:
            if keep is not None:
                chat.bodies = keep  # type: ignore[attr-defined]
        agents = OpenAIAgents(chats[0], temperature=0.0, max_turn_tokens=1024)
        users = LlmUsers(
            chats[1], scenario.user_prompt, temperature=0.0, max_tokens=256, rules=scenario.user_guidelines
        )
        played = await play_all(scenario, tasks, agents, users, in_flight=in_flight, limits=LIMITS)
        return [p.outcome.reward for p in played]


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    environ = {key: value for key, value in os.environ.items() if key != "MUARL_TAU2_ROOT"}  # the package's retail
    server = subprocess.Popen(
        [sys.executable, str(TESTS / "fakes" / "openai_server.py"), "--latency", str(options.latency)],
        stdout=subprocess.PIPE,
        text=True,
        env={**environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        scenario = tau2_scenario("retail")
        tasks = scenario.tasks("base")
        bodies: list[bytes] = []
        asyncio.run(ours(url, scenario, tasks, options.in_flight, bodies))  # warm, and what the peer will send
        rows = []
        for _ in range(options.repeat):
            clock, cpu = time.perf_counter(), time.process_time()
            rewards = asyncio.run(ours(url, scenario, tasks, options.in_flight, None))
            seconds, spent = time.perf_counter() - clock, time.process_time() - cpu
            clock = time.perf_counter()
            asyncio.run(bare(url, bodies, options.in_flight))
            rows.append((seconds, spent, time.perf_counter() - clock, sum(rewards)))
        seconds, spent, peer, solved = min(rows)
        print(
            json.dumps(
                {
                    "episodes": len(tasks),
                    "solved": int(solved),
                    "model_turns": len(bodies),
                    "in_flight": options.in_flight,
                    "episodes_per_second": len(tasks) / seconds,
                    "cpu_ms_per_turn": 1000 * spent / len(bodies),
                    "peer_episodes_per_second": len(tasks) / peer,
                    "ratio": seconds / peer,
                }
            )
        )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
