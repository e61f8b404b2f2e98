"""S17 with a served judge: failures whose culprit is known are judged over the wire, and the share is compared. Prints
one JSON document. The judge goes by a rule; how well a large model or a person agrees is open.

    python docs/measure/user_judge.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.brains import Says
from fakes.judged import YesJudge, failing
from fakes.openai_server import FakeOpenAI, Running
from fakes.planted_users import clean

from muarl_cli.pipeline.judging import ask_judge
from muarl_cli.users.audit import audit

FAILURES = 40


def main() -> None:
    failures, fine = failing(FAILURES, tasks=120), [e for e in clean(tasks=60, trials=1) if e.reward == 1]
    episodes = [*failures, *fine]
    result = {"failures": len(failures), "by_the_user": FAILURES // 2, "gate": 0.01}
    with tempfile.TemporaryDirectory() as folder:
        for label, brain, model in (("found", YesJudge(), "judge"), ("unreadable", Says("I cannot tell."), "m")):
            fake = FakeOpenAI(brain)
            with Running(fake) as url:
                row = audit(episodes, ask_judge(episodes, model, url, 0.0, Path(folder))).groups[0]["S17"]
            result[label] = {"value": row.value, "passed": row.passed, "reason": row.reason, "asked": fake.count}
    row = audit(episodes).groups[0]["S17"]
    result["without_a_judge"] = {"value": row.value, "passed": row.passed, "reason": row.reason}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
