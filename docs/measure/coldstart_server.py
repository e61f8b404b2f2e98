"""A served teacher that misbehaves on purpose, behind a real HTTP server: spoilt replies and troubles of the wire.
Prints JSON: replies, how many were spoilt, what became of each, and whether all accepted trajectories verify again."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from coldstart_offline import muarl
from fakes.openai_server import FakeOpenAI, Running, Troubles
from fakes.teacher_brain import TeacherBrain

from muarl_cli.conversation.events import Actor
from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.verification.coverage import by_coverage
from muarl_cli.worlds.domain import builtin

COUNT = 60
NAMES = ("retail", "library")


def main() -> None:
    domains = [builtin(name) for name in NAMES]
    tasks = [(domain, task) for domain in domains for task in by_coverage(domain.tasks("train"))[:200]]
    brain = TeacherBrain(tasks, rate=0.2, again=0.4)
    fake = FakeOpenAI(brain, troubles=Troubles(0.03, ("429", "500", "malformed", "reset"), 7), keep_requests=False)
    with Running(fake) as url, tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        words = ["--scenarios", ",".join(NAMES), "--count", str(COUNT), "--out", str(out), "max_attempts=6"]
        made = muarl("synth-coldstart", *words, "--teacher-model", "fake-teacher", "--teacher-base-url", url)
        verified = muarl("verify", str(out))
        episodes, verdicts = list(iter_episodes(out)), read_verdicts(out)
        lapses = sum(made["teacher_lapses"].values())
    own = [e for ep in episodes for e in ep.events if e.actor is Actor.AGENT and "greeting" not in e.tags]
    spoilt = sum(brain.spoilt.values())
    good = len(own)
    print(
        json.dumps(
            {
                "requests": fake.count,
                "spoilt": spoilt,
                "kinds": len(brain.spoilt),
                "written_down": lapses,
                "by_kind": made["teacher_lapses"],
                "turns": good,
                "conversations": len(episodes),
                "with_verdict": len(verdicts),
                "given_up": sum("teacher:" in e.end.detail for e in episodes),
                "given_up_accepted": sum(
                    verdicts[e.episode_id]["accepted"] for e in episodes if "teacher:" in e.end.detail
                ),
                "without_reason": sum(not row["accepted"] and not row["reasons"] for row in verdicts.values()),
                "accepted": made["accepted"],
                "verified": verified["passed"],
            }
        )
    )


if __name__ == "__main__":
    main()
