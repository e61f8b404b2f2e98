"""The measurements behind docs/evidence/: `python docs/measure.py NAME` prints one JSON document on stdout.

Each is a function of this file that runs the real commands in a folder of its own (talk goes to stderr) and counts what
they left. Invariant: a figure is read from artifacts or from a clock, never assumed; what could not be done is an
error, not a zero.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the served party, and the stages at the smallest size

from fakes.stages import STAGES, Place, has_begun, hashes, summary  # noqa: E402

BUILTIN = ("builtin:retail:test", "builtin:library:test")
KILLS = 5
IN_FLIGHT = 16
LATENCY = 0.02
"""seconds the served models take to answer"""


def demo_scores() -> dict[str, Any]:
    """What `make demo` found."""
    found = _demo()
    return {name: found[name] for name in ("tasks", "scores", "differences")}


def demo_resources() -> dict[str, Any]:
    """What `make demo` took."""
    found = _demo()
    return {name: found[name] for name in ("seconds", "peak_mb")}


def _demo() -> dict[str, Any]:
    place = ROOT / "runs" / "demo"
    if not (place / "summary.json").exists():
        raise SystemExit("error: there is no runs/demo/summary.json\nnext: make demo")
    return summary(place)


def builtin_floors() -> dict[str, Any]:
    """The scripted agents on all built-in test tasks."""
    scores: dict[str, Any] = {}
    with _folder() as folder:
        for agent in ("oracle", "careful", "hasty"):
            floors = "--floors" if agent == "oracle" else "--no-floors"
            words = ["--agent", agent, "--tasks", ",".join(BUILTIN), "--trials", "1", floors]
            found = _evaluate(folder, f"runs/{agent}", *words)
            scores |= found["scores"]
    return {"tasks": found["tasks"], "scores": scores}


def tau2_gold_replay() -> dict[str, Any]:
    """Gold replay on the leaderboard set of TAU2 retail."""
    with _folder() as folder:
        words = ["--bench", "tau2", "--domain", "retail", "--agent", "gold-replay", "--trials", "1", "--no-floors"]
        rows = _evaluate(folder, "runs/gold", *words)["full"]["gold-replay"]["tasks"]
    return {"tasks": len(rows), "passed": sum(row["mean"] == 1.0 for row in rows)}


def tau2_corrupted() -> dict[str, Any]:
    """Gold replay without its last effective write, on every task that needs a write."""
    from fakes.episodes import play_all

    from muarl_cli.agents.gold_replay import GoldReplay
    from muarl_cli.users.minimal import MinimalUsers
    from muarl_cli.worlds.catalog import scenario_of

    retail = scenario_of("tau2", "retail")
    tasks = [task for task in retail.tasks("base") if task.writes]
    played = asyncio.run(play_all(retail, tasks, GoldReplay(drop_last_write=True), MinimalUsers()))
    graded = [p for p in played if p.transcript.end.reason.graded]
    return {"write_tasks": len(tasks), "failed": sum(p.outcome.reward == 0.0 for p in graded)}


def tau2_floors() -> dict[str, Any]:
    """What the two floors get on the leaderboard set of TAU2 retail."""
    with _folder() as folder:
        words = ["--bench", "tau2", "--domain", "retail", "--agent", "gold-replay", "--trials", "1", "--floors"]
        found = _evaluate(folder, "runs/floors", *words)
    return {"tasks": found["tasks"], "scores": {k: found["scores"][k] for k in ("do_nothing", "transfer_only")}}


def tau2_eval_served() -> dict[str, Any]:
    """`eval` of the 40 test tasks with both parties behind HTTP; `in_flight` is what the server saw at once."""
    with _folder() as folder, _server() as url:
        begun = time.monotonic()
        found = _evaluate(folder, "runs/served", *_served(url))
        seconds = time.monotonic() - begun
        with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
            stats = json.loads(answer.read())
    full = found["full"]["policy"]
    return {
        "episodes": full["episodes"]["done"],
        "in_flight": stats["peak"],
        "requests": stats["requests"],
        "score": full["score"],
        "faults": full["episodes"]["done"] - full["episodes"]["valid"],
        "seconds": round(seconds, 1),
    }


def tau2_kill_resume() -> dict[str, Any]:
    """That `eval`, killed when a dozen episodes are on disk, and started again."""
    with _folder() as straight, _folder() as cut, _server() as url:
        wanted = _evaluate(straight, "runs/served", *_served(url))
        log = cut / "runs" / "served" / "episodes.jsonl"
        command = [*_eval_command("runs/served", *_served(url))]
        process = subprocess.Popen(command, cwd=cut, env=_environment(), stdout=subprocess.DEVNULL)
        while process.poll() is None and _lines(log) < 12:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise SystemExit("error: the evaluation was over before it could be killed")
        from muarl_cli.records.log import iter_episodes

        kept = {episode.episode_id for episode in iter_episodes(log.parent, on_damage=lambda damage: None)}
        found = _evaluate(cut, "runs/served", *_served(url))
        written = [episode.episode_id for episode in iter_episodes(log.parent)]
        means = [{row["key"]: row["mean"] for row in side["full"]["policy"]["tasks"]} for side in (wanted, found)]
        return {
            "kept": len(kept),
            "resumed": len(set(written) - kept),
            "duplicates": _lines(log) - len(set(written)),
            "same_scores": means[0] == means[1] and len(means[0]) == 40,
        }


def same_seed_twice() -> dict[str, Any]:
    """All five stages twice, in two places, at the smallest size."""
    with _folder() as first, _folder() as second:
        places = Place(first), Place(second)
        pairs = []
        for stage in STAGES:
            for place in places:
                place.run(stage)
            ours, theirs = (hashes(place.folder(stage)) for place in places)
            pairs += [(ours.get(name), theirs.get(name)) for name in {*ours, *theirs}]
            _say(f"{stage}: {sum(a == b for a, b in pairs)} of {len(pairs)} hashes equal so far")
    return {"compared": len(pairs), "equal": sum(a == b for a, b in pairs)}


def kill_any_stage() -> dict[str, Any]:
    """Every stage at the smallest size, killed at five moments drawn from the time its work takes."""
    with _folder() as folder:
        straight = Place(folder)
        spans = {stage: straight.timed(stage) for stage in STAGES}
        equal, kills = 0, 0
        for stage in STAGES:
            hits, same = _kill(stage, straight, spans[stage])
            _say(f"{stage}: {hits} kills in {spans[stage]:.1f} s of work, artifacts {'equal' if same else 'DIFFER'}")
            equal, kills = equal + same, kills + hits
    return {"stages": len(STAGES), "equal": equal, "kills": kills}


def _kill(stage: str, straight: Place, span: float) -> tuple[int, bool]:
    """(kills, whether every run that was killed ended with the artifacts of the straight one). A run that ends before
    it can be killed is followed by a new one, until there were enough kills."""
    wanted = hashes(straight.folder(stage))
    draw = random.Random(f"kill {stage}")
    kills, same = 0, True
    while kills < KILLS:
        with _folder() as folder:
            place = Place(folder)
            place.take_inputs(stage, straight)
            while kills < KILLS and place.kill_when(stage, has_begun, draw.uniform(0.0, span)):
                kills += 1
            place.run(stage)
            same = same and hashes(place.folder(stage)) == wanted
    return kills, same


def test_fast() -> dict[str, Any]:
    """The fast suite on two workers."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.monotonic() - begun
    last = done.stdout.strip().splitlines()[-1]
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    if "passed" not in counts:
        raise SystemExit(f"error: the suite did not run: {last}")
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return {
        "passed": counts["passed"],
        "failed": failed,
        "skipped": counts.get("skipped", 0),
        "seconds": round(seconds, 1),
    }


def engine_vs_generate() -> dict[str, Any]:
    """benchmarks/generation.py."""
    command = [sys.executable, str(ROOT / "benchmarks" / "generation.py")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


# -- the tools of the above --------------------------------------------------------------------------------------------


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="muarl-measure-") as name:
        yield Path(name)


@contextmanager
def _server() -> Iterator[str]:
    """A process that serves "fake-agent" and "fake-user" for TAU2 retail; its base URL."""
    script = ROOT / "tests" / "fakes" / "openai_server.py"
    command = [sys.executable, str(script), "--latency", str(LATENCY), "--tasks", "tau2:retail"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit("error: the local server did not start")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _served(url: str) -> list[str]:
    agent = ["--tasks", "tau2:retail:test", "--model", "fake-agent", "--base-url", url, "--in-flight", str(IN_FLIGHT)]
    return [*agent, "--user-model", "fake-user", "--user-base-url", url, "--trials", "1", "--no-floors"]


def _eval_command(out: str, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("muarl")), "eval", *words, "--out", out, "--json"]


def _evaluate(folder: Path, out: str, *words: str) -> dict[str, Any]:
    """The result of an `eval` that must end well."""
    command = _eval_command(out, *words)
    done = subprocess.run(command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: exit code {done.returncode} of {' '.join(command)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "MUARL_"))}
    return own | {"OMP_NUM_THREADS": "1"}


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


MEASUREMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        demo_scores,
        demo_resources,
        builtin_floors,
        tau2_gold_replay,
        tau2_corrupted,
        tau2_floors,
        tau2_eval_served,
        tau2_kill_resume,
        same_seed_twice,
        kill_any_stage,
        test_fast,
        engine_vs_generate,
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what a row of docs/evidence/ claims; prints JSON.")
    parser.add_argument("name", choices=sorted(MEASUREMENTS), metavar="NAME", help=", ".join(MEASUREMENTS))
    print(json.dumps(MEASUREMENTS[parser.parse_args(arguments).name](), allow_nan=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
