"""ACEBench's own `generate.py` and `eval_main.py` and `muarl eval` against one fake server: prints one JSON document.

    MUARL_ACEBENCH_DIR=CHECKOUT python docs/measure/acebench_official.py [en|zh]

The server plays the agent from the milestones as they are written and errs in about a tenth of the turns, and plays the
user. Compared are, entry by entry: the end state, the messages that went to execution, the official verdict, and every
prompt that was sent. The checkout's code runs in a copy, with stand-ins for the packages it imports and does not use.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.acebench_brain import MODEL, AceBrain  # noqa: E402
from fakes.openai_server import FakeOpenAI, Running  # noqa: E402

from muarl_cli.benchmarks.acebench_package import KINDS, open_checkout  # noqa: E402
from muarl_cli.records.log import iter_episodes  # noqa: E402

STAND_INS = {
    "vllm": "LLM = SamplingParams = None\n",
    "google/__init__": "",
    "google/generativeai": "",
    "wcwidth": "wcswidth = len\n",
    "openpyxl/__init__": "Workbook = None\n",
    "openpyxl/styles": "Alignment = None\n",
}


def official(folder: Path, url: str, language: str) -> None:
    """The official generate and evaluate, in a copy of the checkout."""
    stand_ins = folder / "stand_ins"
    for name, text in STAND_INS.items():
        path = stand_ins / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    keys = {f"{who}_{what}": value for who in ("GPT", "GPT_AGENT") for what, value in
            (("API_KEY", "x"), ("BASE_URL", url))}  # fmt: skip
    env = {**os.environ, **keys, "PYTHONPATH": str(stand_ins)}
    common = ["--model", MODEL, "--category", "agent", "--language", language]
    (folder / "score_all" / f"score_{language}" / MODEL).mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "generate.py", *common, "--user-model", MODEL], folder, env)
    evaluate(folder, env, common)


def evaluate(folder: Path, env: dict[str, str], common: list[str]) -> None:
    """The official evaluation. Its leaderboard table, which comes last, wants all categories: only that may fail."""
    done = subprocess.run(
        [sys.executable, "eval_main.py", *common], cwd=folder, env=env, capture_output=True, text=True
    )
    if done.stdout.count("is done!") != 2:
        raise SystemExit(f"error: eval_main.py: {done.stdout[-800:]}{done.stderr[-1500:]}")


def _run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {command[1]}: {done.stdout[-800:]}{done.stderr[-1500:]}")


def rows_of(folder: Path, language: str, kind: str) -> dict[str, dict[str, Any]]:
    path = folder / "result_all" / f"result_{language}" / MODEL / f"data_agent_{kind}_result.json"
    return {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def verdicts(folder: Path, language: str, kind: str) -> tuple[dict[str, Any], set[int]]:
    """The official head of the score file and the places of the entries that failed."""
    path = folder / "score_all" / f"score_{language}" / MODEL / f"data_agent_{kind}_score.json"
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return head, {row["id"] for row in rows}


def prompts(requests: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(request["body"]["messages"], ensure_ascii=False) for request in requests)


def main() -> None:
    language = sys.argv[1] if len(sys.argv) > 1 else "en"
    checkout = open_checkout()
    entries = [entry for kind in KINDS for entry in checkout.entries(language, kind)]
    fake = FakeOpenAI(AceBrain(entries))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place, Running(fake) as url:
        folder = Path(place)
        shutil.copytree(checkout.folder, folder / "official", ignore=shutil.ignore_patterns(".git"))
        official(folder / "official", url, language)
        theirs, fake.requests = prompts(fake.requests), []
        command = [sys.executable, "-m", "muarl_cli", "eval", "--bench", "acebench", "--split", language]
        more = ["--model", MODEL, "--base-url", url, "--user-model", MODEL, "--user-base-url", url]
        rest = ["--trials", "1", "--no-floors", "--out", str(folder / "ours"), "--json"]
        subprocess.run([*command, *more, *rest], check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
        ours = prompts(fake.requests)
        episodes = {(e.scenario.split(":")[1], e.task_id): e for e in iter_episodes(folder / "ours")}
        for kind in KINDS:
            head, failed = verdicts(folder / "official", language, kind)
            rows = rows_of(folder / "official", language, kind)
            own = rows_of(folder / "ours" / "official", language, kind)
            ids = [entry["id"] for entry in checkout.entries(language, kind)]
            score = {i: episodes[kind, i].reward for i in ids}
            process = sum(episodes[kind, i].detail["process"] for i in ids) / len(ids)
            found[kind] = {
                "entries": len(ids),
                "passed": sum(score[i] == 1.0 for i in ids),
                "official_passed": head["correct_count"],
                "agree": sum((score[i] == 1.0) == (n not in failed) for n, i in enumerate(ids)),
                "same_end_state": sum(own[i]["result"] == rows[i]["result"] for i in ids),
                "same_messages": sum(own[i]["process"] == rows[i]["process"] for i in ids),
                "process_accuracy": process,
                "official_process_accuracy": head["process_accuracy"],
                "differ": [i for i in ids if own[i] != rows[i]],
            }
    total = {key: sum(row[key] for row in found.values()) for key in ("entries", "agree", "same_end_state")}
    same = theirs == ours
    print(json.dumps({"language": language, **total, "prompts": len(theirs), "same_prompts": same, "kinds": found}))


if __name__ == "__main__":
    main()
