"""A real local HTTP server that speaks the OpenAI chat API and plays both parties from a script.

python tests/fakes/openai_server.py --port 0 --latency 0.05 --tasks tau2:retail
python tests/fakes/openai_server.py --latency 1 --words --troubles 429=0.2,500=0.1,hang=0.05 --retry-after 0.1

prints its base URL and serves until it is killed. It keeps no state: a reply depends on the conversation in the request
alone, so clients may retry, resume and run in any order. A `Brain` decides what to say; errors are injected by rate and
seed. What is refused (429, 5xx) is refused at once, everything else takes the latency, and "hang" never answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from muarl_cli.agents.floors import GOODBYE
from muarl_cli.agents.gold_replay import plan
from muarl_cli.users.messages import END_TOKENS
from muarl_cli.users.minimal import NO_REASON, opening, reply

Body = Mapping[str, Any]
ERROR_KINDS = ("429", "500", "503", "malformed", "empty", "reset")
_TOKEN_OF = {end: token for token, end in END_TOKENS.items()}


class Brain(Protocol):
    """Decides what a served model says."""

    models: tuple[str, ...]

    def message(self, body: Body) -> dict[str, Any]:
        """The assistant message ("content", perhaps "tool_calls") for a request."""
        ...


class GoldBrain:
    """Plays "fake-agent" (gold replay, recognised by what the user opened with) and "fake-user" (recognised by its
    prompt).

    Works for any scenario whose tasks have gold calls; the user is the minimal one.
    """

    models = ("fake-agent", "fake-agent-hasty", "fake-user")

    def __init__(self, scenarios: Sequence[Any]) -> None:
        self._by_opening: dict[str, tuple[Any, Any]] = {}
        self._by_prompt: dict[str, str] = {}
        for scenario in scenarios:
            for task in (task for split in scenario.splits() for task in scenario.tasks(split)):
                prompt = _flat(scenario.user_prompt(task))
                # a brief without a reason in words has an opening that names no task; its prompt does
                words = opening(task) if opening(task) != NO_REASON else prompt
                self._by_opening.setdefault(_flat(words), (task, scenario))
                self._by_prompt.setdefault(prompt, words)

    def message(self, body: Body) -> dict[str, Any]:
        return self._user(body) if body["model"] == "fake-user" else self._agent(body)

    def _user(self, body: Body) -> dict[str, Any]:
        messages = body["messages"]
        words = self._opening_for(_flat(messages[0]["content"]))
        if not words:
            return {"content": "###OUT-OF-SCOPE###"}
        if not any(message["role"] == "assistant" for message in messages):
            return {"content": words}
        turn = reply(messages[-1]["content"])
        token = _TOKEN_OF[turn.end] if turn.end else ""
        return {"content": " ".join(filter(None, (turn.text, token)))}

    def _opening_for(self, prompt: str) -> str:
        """What the user of this prompt opens with, "" for an unknown one; the client may have put rules around it."""
        if prompt not in self._by_prompt:
            within = [known for known in self._by_prompt if known in prompt]
            self._by_prompt[prompt] = self._by_prompt[max(within, key=len)] if within else ""
        return self._by_prompt[prompt]

    def _agent(self, body: Body) -> dict[str, Any]:
        messages = body["messages"]
        said = [message for message in messages if message["role"] == "user"]
        task, scenario = self._by_opening.get(_flat(said[0]["content"]), (None, None)) if said else (None, None)
        if task is None or scenario is None:
            return {"content": GOODBYE}
        moves = plan(task, scenario.tools, drop_last_write=body["model"] == "fake-agent-hasty")
        start = messages.index(said[0])
        done = sum(message["role"] == "assistant" for message in messages[start:])
        move = moves[min(done, len(moves) - 1)]
        if move.call is None:
            return {"content": move.text}
        function = {"name": move.call.name, "arguments": json.dumps(dict(move.call.arguments))}
        return {"content": None, "tool_calls": [{"id": f"fake{done}", "type": "function", "function": function}]}


@dataclass
class Troubles:
    """Errors to inject: the share of requests, which kinds, from which seed; or `shares`, a share for each kind. The
    n-th request meets the same fate."""

    rate: float = 0.0
    kinds: tuple[str, ...] = ERROR_KINDS
    seed: int = 0
    retry_after: str = "0.01"
    shares: Mapping[str, float] = field(default_factory=dict)

    def draw(self, number: int) -> str:
        """The trouble of request `number`, "" for none."""
        rng = random.Random(f"{self.seed}:{number}")
        if self.shares:
            return str(rng.choices([*self.shares, ""], [*self.shares.values(), 1 - sum(self.shares.values())])[0])
        return rng.choice(self.kinds) if rng.random() < self.rate else ""


@dataclass
class FakeOpenAI:
    """The application: routes, what was asked (`requests`), how many were in flight at once (`peak`)."""

    brain: Brain
    latency: float = 0.0
    troubles: Troubles = field(default_factory=Troubles)
    script: list[str] = field(default_factory=list)
    """troubles (or "" for none) of the first requests, before `troubles` is asked"""
    silent: Callable[[], bool] = bool
    """whether requests that come now are never answered; by default they are"""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keep_requests: bool = True
    count: int = 0
    size: int = 0
    """bytes of all requests"""
    in_flight: int = 0
    peak: int = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/stats", self._stats)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self.brain.models]
        return web.json_response({"object": "list", "data": rows})

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response({"requests": self.count, "bytes": self.size, "peak": self.peak})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        number, self.count, self.size = self.count, self.count + 1, self.size + len(raw)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            body = json.loads(raw)
            if self.keep_requests:
                self.requests.append({"headers": dict(request.headers), "body": body})
            trouble = self.script.pop(0) if self.script else self.troubles.draw(number)
            if trouble == "hang" or self.silent():
                return await _hung(request)
            if self.latency and not trouble[:3].isdigit():
                await asyncio.sleep(self.latency)
            return self._troubled(request, trouble) if trouble else self._answer(body)
        finally:
            self.in_flight -= 1

    def _answer(self, body: Body) -> web.Response:
        if body["model"] not in self.brain.models:
            error = {"message": f"The model {body['model']} does not exist", "code": "model_not_found"}
            return web.json_response({"error": error}, status=404)
        return _completion(body, self.brain.message(body))

    def _troubled(self, request: web.Request, trouble: str) -> web.Response:
        if trouble == "malformed":
            return web.Response(text='{"choices": [{"message": ', content_type="application/json")
        if trouble == "empty":
            return _completion({"model": "fake"}, {"content": ""})
        if trouble == "filtered":
            return _completion({"model": "fake"}, {"content": None}, "content_filter")
        if trouble == "cut":
            return _completion({"model": "fake"}, {"content": ""}, "length")
        if trouble == "reset":
            transport = request.transport
            if transport is not None:
                transport.close()
            return web.Response()
        status, _, code = trouble.partition(":")
        headers = {"Retry-After": self.troubles.retry_after} if status == "429" else {}
        error = {"message": f"injected {trouble}", "code": code or None}
        return web.json_response({"error": error}, status=int(status), headers=headers)


async def _hung(request: web.Request) -> web.Response:
    """No answer, until the client has gone."""
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.02)
    return web.Response()


def _completion(body: Body, message: dict[str, Any], finish: str = "") -> web.Response:
    words = len(str(message.get("content") or "").split()) + 20 * len(message.get("tool_calls") or ())
    prompt = sum(len(str(m.get("content") or "").split()) for m in body.get("messages", ()))
    finish = finish or ("tool_calls" if message.get("tool_calls") else "stop")
    return web.json_response(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words},
        }
    )


class Running:
    """The server on a thread of this process, as a context manager: `with Running(fake) as url`."""

    def __init__(self, fake: FakeOpenAI) -> None:
        self.fake = fake
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        self._runner, url = asyncio.run_coroutine_threadsafe(start(self.fake, 0), self._loop).result(30)
        return url

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


async def start(fake: FakeOpenAI, port: int) -> tuple[web.AppRunner, str]:
    """Serve on 127.0.0.1; (runner, base URL). Port 0 takes a free one."""
    runner = web.AppRunner(fake.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"


def scenarios_of(references: Sequence[str]) -> list[Any]:
    """Scenarios by "source:name"."""
    from muarl_cli.worlds.catalog import scenario_of

    return [scenario_of(*reference.split(":", 1)) for reference in references]


async def _serve(fake: FakeOpenAI, port: int) -> None:
    _, url = await start(fake, port)
    print(url, flush=True)
    await asyncio.Event().wait()


def _flat(text: str) -> str:
    return " ".join(str(text).split())


def main(arguments: Sequence[str]) -> None:
    from wording import Rewords  # this folder is the first on the path of a script

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each reply")
    parser.add_argument("--tasks", action="append", help="source:scenario whose tasks are played (repeatable)")
    parser.add_argument("--error-rate", type=float, default=0.0)
    parser.add_argument("--error-kinds", default=",".join(ERROR_KINDS))
    parser.add_argument("--troubles", default="", help="a share for each kind instead: 429=0.2,500=0.1,hang=0.05")
    parser.add_argument("--retry-after", default="0.01", help="seconds that a 429 asks for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", action="store_true", help='"m" words the turns of an agenda; needs no --tasks')
    args = parser.parse_args(arguments)
    pairs = (pair.split("=") for pair in args.troubles.split(",") if pair)
    shares = {kind: float(share) for kind, share in pairs}
    troubles = Troubles(args.error_rate, tuple(args.error_kinds.split(",")), args.seed, args.retry_after, shares)
    brain: Brain = Rewords() if args.words else GoldBrain(scenarios_of(args.tasks or ["tau2:retail"]))
    fake = FakeOpenAI(brain, args.latency, troubles, keep_requests=False)
    asyncio.run(_serve(fake, args.port))


if __name__ == "__main__":
    main(sys.argv[1:])
