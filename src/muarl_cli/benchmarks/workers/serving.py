"""Serves worlds over stdin and stdout: one JSON object a line in, one a line out, answered in order.

    python serving.py MODULE ROOT

MODULE stands beside this file and has a `Host(root)` whose methods are the verbs. A request is
{"id": 7, "verb": "call", "args": {...}}; its answer {"id": 7, "value": ...} or {"id": 7, "error": "..."}. Runs under an
interpreter that is not ours, so it is standard library alone. Invariant: what the served code prints goes to standard
error and never into the protocol; the end of stdin is the end of the process.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1 << 16)
    os.dup2(2, 1)
    host = importlib.import_module(arguments[0]).Host(Path(arguments[1]))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            value = getattr(host, request["verb"])(**request["args"])
            if request["verb"] == "hello":  # which code it is stands beside every score
                value = {"python": sys.version.split()[0], "revision": revision(arguments[1]), **value}
            reply = {"id": request["id"], "value": value}
        except Exception as error:  # whatever the served code raises is told, and the next request is served
            traceback.print_exc()
            reply = {"id": request["id"], "error": f"{type(error).__name__}: {error}"[:2000]}
        answers.write(json.dumps(reply, default=str) + "\n")
        answers.flush()
    return 0


def revision(root: str) -> str:
    """The commit of a checkout, "" where there is none."""
    command = ["git", "-C", root, "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
