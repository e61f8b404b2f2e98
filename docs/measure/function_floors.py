"""The do-nothing and the transfer-only floor of BFCL (V4) and ACEBench (en): prints one JSON document.

Plays both agents through `muarl eval`, without a model. ACEBench needs MUARL_ACEBENCH_DIR.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETS = [f"bfcl:{name}:v4" for name in ("base", "miss_func", "miss_param", "long_context", "parallel")]
SETS += [f"acebench:{name}:en" for name in ("multi_turn", "multi_step")]


def main() -> None:
    found: dict[str, Any] = {}
    for tasks in SETS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "muarl_cli", "eval", "--tasks", tasks, "--agent", "gold-replay"]
            rest = ["--trials", "1", "--out", str(Path(folder) / "run"), "--json"]
            done = subprocess.run([*command, *rest], stdout=subprocess.PIPE, text=True, check=True)
            scores = json.loads(done.stdout)["scores"]
            found["_".join(tasks.split(":")[:2])] = {
                name: scores[name]["mean"] for name in ("do_nothing", "transfer_only", "gold-replay")
            }
    highest = max(row[name] for row in found.values() for name in ("do_nothing", "transfer_only"))
    print(json.dumps({"highest": highest, **found}))


if __name__ == "__main__":
    main()
