"""Tests that need what a plain `make test` has not, run by themselves. Prints JSON: how many, which passed.

python docs/measure/passing.py tests/engines/test_vllm_real.py real_server
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def passing(*arguments: str) -> dict[str, Any]:
    """What pytest says of these tests; a skipped one did not pass."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", *arguments, f"--junit-xml={report}"]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False, timeout=1500)
        cases = list(xml.parse(report).getroot().iter("testcase"))
    names = {
        case.get("name", ""): [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        for case in cases
    }
    failed = sum(bool(marks) for marks in names.values())
    seconds = round(sum(float(case.get("time", 0)) for case in cases), 1)
    return {"tests": len(names), "passed": len(names) - failed, "failed": failed, "seconds": seconds, "results": names}


if __name__ == "__main__":
    path, *names = sys.argv[1:]
    print(json.dumps(passing(path, *(("-k", names[0]) if names else ()))))
