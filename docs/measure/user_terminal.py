"""`muarl play` driven through a real pseudo-terminal: runs its tests, prints how many passed as one JSON document."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/cli/test_play.py",
        "-k",
        "terminal",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    if not counts:
        raise SystemExit(done.stdout)
    print(json.dumps({"passed": 0, "failed": 0, "error": 0, "skipped": 0} | counts))


if __name__ == "__main__":
    main()
