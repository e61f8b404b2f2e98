"""US-12: the scripted user without network and without any package of machine learning. Prints one JSON document.

    python docs/measure/users_offline.py

A rollout, its audit and a replay of its log run as the real commands in processes in which every socket to the outside
and every import of a listed package is an error, which a control shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BLOCKED = ("torch", "transformers", "tokenizers", "peft", "numpy", "openai", "aiohttp", "httpx", "requests", "vllm")
GUARD = f"""
import importlib.abc, socket, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError("not here: " + name, name=name)
sys.meta_path.insert(0, Refuse())
def refuse(*args, **more):
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def run(
    place: Path, *words: str, code: str = "from muarl_cli.cli.app import main; sys.exit(main(sys.argv[1:]))"
) -> Any:
    """(exit code, standard output) of a guarded process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "MUARL_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", GUARD + code, *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tasks = ["--tasks", "builtin:retail:test,builtin:library:test", "--group", "1"]
        rolled, said = run(place, "rollout", "--agent", "careful", *tasks, "--out", "log", "--json")
        audited, found = run(place, "users", "audit", "log", "--json")
        replayed, again = run(place, "rollout", "--agent", "careful", *tasks, "--user", "replay", "--user-model", "log",
                              "--out", "again", "--json")  # fmt: skip
        controls = [
            run(place, code="import torch")[0],
            run(place, code="import socket; socket.create_connection(('127.0.0.1', 9))")[0],
        ]
    result = {
        "exit_codes": [rolled, audited, replayed],
        "episodes": json.loads(said)["full"]["episodes"]["valid"],
        "replayed": json.loads(again)["full"]["episodes"]["valid"],
        "audit_failed": json.loads(found)["failed"],
        "controls_refused": sum(code != 0 for code in controls),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
