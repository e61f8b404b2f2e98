"""What the layers say of agents that serve nobody (EV-02), in both built-in scenarios. Prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.test_bad_agents import MUST_FAIL, hands_over, judged

from muarl_cli.scoring.layers import Verdict
from muarl_cli.worlds.domain import BUILTIN


def main() -> None:
    rows = {
        kind: [row for name in BUILTIN for row in judged(name, kind) if row[0].writes and not hands_over(row[0])]
        for kind in MUST_FAIL
    }
    failing = [
        layered.verdict(MUST_FAIL[kind][0]) is Verdict.FAIL for kind, found in rows.items() for _, _, layered in found
    ]
    clean = {kind.replace("-", "_"): sum(r[2].clean_success for r in found) for kind, found in rows.items()}
    won = {f"{kind.replace('-', '_')}_won": sum(r[1].reward for r in found) for kind, found in rows.items()}
    tasks = len(rows["do-nothing"])
    share = sum(failing) / len(failing)
    print(json.dumps({"write_tasks": tasks, "clean": clean, "own_layer_fails": share, **won}))


if __name__ == "__main__":
    main()
