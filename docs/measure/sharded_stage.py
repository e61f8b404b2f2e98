"""The end-to-end tests of training on several ranks: real `muarl` processes under torchrun and DeepSpeed's launcher,
killed and run again. Prints JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/e2e/test_ranks.py", f"--junit-xml={report}"]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False, timeout=1500)
        cases = list(xml.parse(report).getroot().iter("testcase"))
    names = {
        case.get("name", ""): [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        for case in cases
    }
    failed = sum(bool(marks) for marks in names.values())
    print(json.dumps({"tests": len(names), "passed": len(names) - failed, "failed": failed, "results": names}))


if __name__ == "__main__":
    main()
