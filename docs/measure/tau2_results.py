"""Whether TAU2's own command reads our result files, replays what is in them, and comes to the same rewards.

`muarl eval` plays the gold replay and the same without its last write; `tau2 evaluate-trajs` of a checkout
(MUARL_TAU2_ROOT, MUARL_TAU2_PYTHON) grades both again.

    python docs/measure/tau2_results.py [DOMAIN...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from muarl_cli.benchmarks.checkouts import python_of, root_of

DOMAINS = ("retail", "airline", "telecom")
COMMAND = "from tau2.cli import main; main()"


def evaluated(folder: Path, domain: str, agent: str) -> Path:
    """The result file of an evaluation by a scripted agent."""
    out = folder / f"{domain}-{agent}"
    arguments = ["eval", "--bench", "tau2", "--domain", domain, "--agent", agent, "--trials", "1", "--no-floors"]
    environ = {key: value for key, value in os.environ.items() if key != "MUARL_TAU2_ROOT"}
    command = [sys.executable, "-m", "muarl_cli", *arguments, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, env=environ)
    return out / "official" / "tau2" / domain / "results.json"


def regraded(file: Path, folder: Path) -> list[float]:
    """The rewards that the benchmark's own command gives."""
    root = root_of("tau2")
    assert root is not None, "name a checkout with MUARL_TAU2_ROOT"
    environ = {
        **os.environ,
        "PYTHONPATH": str(root / "src"),
        "TAU2_DATA_DIR": str(root / "data"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [python_of("tau2"), "-c", COMMAND, "evaluate-trajs", str(file), "-o", str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=environ)
    found = json.loads((folder / f"updated_{file.name}").read_text())
    return [run["reward_info"]["reward"] for run in found["simulations"]]


def main(domains: list[str]) -> None:
    rows: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for domain in domains or DOMAINS:
            for agent in ("gold-replay", "do-nothing"):
                folder = Path(temporary) / f"regraded-{domain}-{agent}"
                folder.mkdir()
                file = evaluated(Path(temporary), domain, agent)
                ours = [run["reward_info"]["reward"] for run in json.loads(file.read_text())["simulations"]]
                theirs = regraded(file, folder)
                equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
                rows[f"{domain}_{agent}".replace("-", "_")] = {
                    "episodes": len(ours),
                    "rewarded": int(sum(ours)),
                    "equal": equal,
                }
    total, equal = sum(row["episodes"] for row in rows.values()), sum(row["equal"] for row in rows.values())
    print(json.dumps({"episodes": total, "equal": equal, "files": len(rows), "by_file": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
