"""A benchmark's process: what it answers, and what becomes of it when it dies, hangs or talks nonsense."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muarl_cli.benchmarks.worker import Worker
from muarl_cli.conversation.protocols import ToolFault

SCRIPT = """
import json, os, sys, time
count = 0
for line in sys.stdin:
    request = json.loads(line)
    count += 1
    match request["op"]:
        case "echo":
            answer = {"answer": [request["value"], count, os.environ.get("GIVEN", "")]}
        case "refuse":
            answer = {"error": "ValueError: no such entry"}
        case "die":
            print("the last words", file=sys.stderr)
            sys.exit(3)
        case "hang":
            time.sleep(60)
        case "nonsense":
            print("not JSON", flush=True)
            continue
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return Worker([sys.executable, str(script)], {"GIVEN": "yes"})


def test_answers_come_in_order_and_long_lines_are_whole(worker: Worker) -> None:
    long = "é" * 300_000
    assert worker.ask("echo", value=1) == [1, 1, "yes"]
    assert worker.ask("echo", value=long) == [long, 2, "yes"]
    worker.close()


def test_a_refusal_is_a_fault_and_the_process_goes_on(worker: Worker) -> None:
    with pytest.raises(ToolFault, match="no such entry"):
        worker.ask("refuse")
    assert worker.ask("echo", value=2) == [2, 2, "yes"]
    assert worker.generation == 1
    worker.close()


@pytest.mark.parametrize(
    ("operation", "seconds", "said"),
    [("die", 20, "the last words"), ("hang", 0.3, "0.3"), ("nonsense", 20, "Expecting value")],
)
def test_a_process_that_fails_is_replaced_under_a_new_generation(
    worker: Worker, operation: str, seconds: float, said: str
) -> None:
    worker.ask("echo", value=0)
    with pytest.raises(ToolFault, match=said):
        worker.ask(operation, seconds=seconds)
    assert worker.ask("echo", value=1) == [1, 1, "yes"]
    assert worker.generation == 2
    worker.close()
