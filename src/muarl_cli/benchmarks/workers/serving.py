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
            reply = {"id": request["id"], "value": getattr(host, request["verb"])(**request["args"])}
        except Exception as error:  # whatever the served code raises is told, and the next request is served
            traceback.print_exc()
            reply = {"id": request["id"], "error": f"{type(error).__name__}: {error}"[:2000]}
        answers.write(json.dumps(reply, default=str) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
