"""What a served user costs: conversations with a local server that takes its time, and makes trouble.

    python benchmarks/served_users.py troubles [--episodes 448] [--in-flight 64]
    python benchmarks/served_users.py concurrent [--episodes 256] [--in-flight 256]

`troubles` holds the same conversations twice, with a server that answers and with one that says 429 to 20 % of the
requests, 500 to 10 %, never answers 5 %, answers 2 % with nothing, filters 1 % and breaks the JSON of 1 %; it compares
the replies a second that both bring, and counts the requests that left before the moment a Retry-After had named.
`concurrent` compares the time that conversations take together with the least that is possible: that of the longest
one, and of all replies over all places. The careful agent plays; the stage, its settings and its client are the real
ones. Both print one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muarl_cli.cli.console import Talk
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.engines import wire
from muarl_cli.engines.refusals import Passing
from muarl_cli.pipeline import rollout
from muarl_cli.records.log import iter_episodes
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve

ROOT = Path(__file__).resolve().parents[1]
TROUBLES = {"429": 0.20, "500": 0.10, "hang": 0.05, "empty": 0.02, "filtered": 0.01, "malformed": 0.01}
LATENCY, RETRY_AFTER, TIMEOUT = 1.0, 0.05, 2.0
"""seconds: a reply, what a 429 asks for, how long is waited for a reply"""


class Watched(wire.Wire):
    """The client, with a look at each request as it leaves."""

    sent = early = 0
    quiet_until = float("-inf")

    async def _once(self, method: str, path: str, payload: bytes | None) -> dict[str, Any]:
        now = asyncio.get_running_loop().time()
        Watched.sent += 1
        Watched.early += now < Watched.quiet_until
        try:
            return await super()._once(method, path, payload)
        except Passing as trouble:
            if trouble.after is not None:
                then = asyncio.get_running_loop().time() + trouble.after
                Watched.quiet_until = max(Watched.quiet_until, then)
            raise


@contextmanager
def server(troubles: dict[str, float], latency: float) -> Iterator[str]:
    """A process that words the turns of a scripted user; its base URL."""
    shares = ",".join(f"{kind}={share}" for kind, share in troubles.items())
    script = str(ROOT / "tests" / "fakes" / "openai_server.py")
    command = [sys.executable, script, "--words", "--latency", str(latency), "--troubles", shares]
    process = subprocess.Popen([*command, "--retry-after", str(RETRY_AFTER)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)


def hold(url: str, episodes: int, in_flight: int, group: int) -> list[Episode]:
    """The episodes of a rollout with the user served at `url`."""
    flags = {
        "agent": "careful",
        "tasks": ["builtin:retail:train"],
        "max_tasks": episodes // group,
        "group": group,
        "in_flight": in_flight,
        "user.backend": "llm",
        "user.model": "m",
        "user.base_url": url,
        "user.timeout": TIMEOUT,
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = resolve(Stage.ROLLOUT, flags={key: (key, value) for key, value in flags.items()}).settings
        talk = Talk(json=True)
        with talk.data_only():
            rollout.run(settings, Path(folder), talk)
        return list(iter_episodes(Path(folder)))


def replies(episode: Episode) -> int:
    """Turns of the user in an episode."""
    return sum(event.actor is Actor.USER and event.kind is Kind.SAY for event in episode.events)


def seconds(episodes: list[Episode]) -> float:
    """From the start of the first conversation to the end of the last."""
    started = [float(e.volatile["started"]) for e in episodes]
    ended = [float(e.volatile["started"]) + float(e.volatile["seconds"]) for e in episodes]
    return max(ended) - min(started)


def troubles(episodes: int, in_flight: int) -> dict[str, Any]:
    rates, faults = {}, Counter[str]()
    for name, kinds in (("clean", {}), ("troubled", TROUBLES)):
        Watched.sent = Watched.early = 0
        with server(kinds, LATENCY) as url:
            held = hold(url, episodes, in_flight, 4)
        rates[name] = sum(map(replies, held)) / seconds(held)
    faults.update(e.end.reason.value for e in held if not e.valid)
    return {
        "episodes": len(held),
        "requests": Watched.sent,
        "replies": sum(map(replies, held)),
        "early": Watched.early,
        "infra_faults": faults["infra_fault"] / len(held),
        "faults": dict(faults),
        "replies_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "throughput": rates["troubled"] / rates["clean"],
    }


def concurrent(episodes: int, in_flight: int) -> dict[str, Any]:
    with server({}, LATENCY) as url:
        held = hold(url, episodes, in_flight, 1)
    calls = [replies(e) for e in held]
    ideal = LATENCY * max(max(calls), sum(calls) / in_flight)
    took = seconds(held)
    return {"episodes": len(held), "replies": sum(calls), "seconds": took, "ideal": ideal, "times_ideal": took / ideal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("troubles", "concurrent"))
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--in-flight", type=int)
    options = parser.parse_args()
    wire.Wire = Watched  # type: ignore[misc]
    if options.what == "troubles":
        found = troubles(options.episodes or 448, options.in_flight or 64)
    else:
        found = concurrent(options.episodes or 256, options.in_flight or 256)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
