"""What the layers say of scripted agents on the test tasks, of the oracle under each fault forced on, and of the guard.

Prints JSON: by agent, success, clean and corrupt success on tasks with a write; by injector, how often it fired and how
often the expected reaction followed; double writes of the oracle and of an agent that retries blindly.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.judged_talks import talk
from worlds.test_injectors import BlindRetries, writes_sent_twice_blindly

from muarl_cli.scoring.layer_summary import Judged, summarise_layers
from muarl_cli.scoring.layers import judge
from muarl_cli.worlds.domain import BUILTIN, builtin

FAULTS = ("latency", "tool_5xx", "permission_denied", "odd_reply", "schema_drift", "partial_write")


def layers_of(agent: Any, injectors: str = "", guard: bool = False) -> tuple[dict[str, Any], int, int]:
    """(layer summary, episodes with a blind double write, episodes), over the test tasks that need a write."""
    rows, double = [], 0
    for name in BUILTIN:
        domain = builtin(name)
        for task in domain.tasks("test"):
            if task.writes:
                played = talk(domain, task, agent(domain) if callable(agent) else agent, injectors, guard)
                rows.append(Judged(f"{name}:{task.id}", judge(played, domain, task)))
                double += writes_sent_twice_blindly(played) > 0
    return summarise_layers(rows, resamples=2000, seed=1), double, len(rows)


def main() -> None:
    agents, faults = {}, {}
    for label, agent, guard in (("oracle", "oracle", False), ("careful", "careful", False), ("hasty", "hasty", False),
                                ("do_nothing", "do-nothing", False), ("hasty_guarded", "hasty", True)):  # fmt: skip
        found, _, _ = layers_of(agent, guard=guard)
        agents[label] = {key: found[key] for key in ("success", "clean_success", "corrupt_success")}
    for fault in FAULTS:
        found, double, episodes = layers_of("oracle", f"{fault}=1")
        faults[fault] = found["recovery_by_injector"][fault] | {"success": found["success"]["mean"]}
        if fault == "partial_write":
            oracle = double / episodes
    _, double, episodes = layers_of(BlindRetries, "partial_write=1")
    writes = {"oracle": oracle, "blind_retry": double / episodes}
    print(json.dumps({"agents": agents, "faults": faults, "double_write_share": writes}))


if __name__ == "__main__":
    main()
