"""The paper's cold start offline: `muarl synth-coldstart --scenarios 9 --count 2000` with its defaults, then every
accepted trajectory verified again from the log alone, those of the MCP scenarios on real servers (`muarl mcp install`
comes first). Prints JSON: seconds, counts, what the card says."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COUNT = 2000


def muarl(*words: str) -> dict[str, Any]:
    """A command's JSON result."""
    command = [str(Path(sys.executable).with_name("muarl")), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        out = f"{place}/cold"
        started = time.monotonic()
        made = muarl("synth-coldstart", "--scenarios", "9", "--count", str(COUNT), "--out", out)
        seconds = time.monotonic() - started
        verified = muarl("verify", out, "--benchmarks")
        card = json.loads((Path(out) / "card.json").read_text())
    rows = card["scenarios"].values()
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "accepted": made["accepted"],
                "held": made["held"],
                "scenarios": len(made["accepted_by_scenario"]),
                "fewest": min(made["accepted_by_scenario"].values()),
                "verified": verified["passed"],
                "carried_out_again": verified["carried_out_again"],
                "on_servers": sum(n for name, n in made["accepted_by_scenario"].items() if name.startswith("mcp:")),
                "not_verified": verified["not_verified"],
                "twice": verified["twice"],
                "tools_missing": sorted({tool for row in rows for tool in row["tools_missing"]}),
                "pairs": sum(row["pairs"] for row in rows),
                "pairs_of": sum(row["pairs_of"] for row in rows),
                "near_duplicates": card["duplicates"]["above_80%"],
                "overlap": sum(row["same_task"] + row["same_gold_writes"] for row in card["overlap"].values()),
                "benchmarks": len(card["overlap"]),
            }
        )
    )


if __name__ == "__main__":
    main()
