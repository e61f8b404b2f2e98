"""The official BFCL command line and `muarl eval` against one fake server, entry by entry: prints one JSON document.

    python docs/measure/bfcl_official.py [v3|v4] [CATEGORY ...]

The server answers with the gold and errs deterministically in about a tenth of the turns (dropped calls, other values,
unknown tools and arguments, calls that cannot be read, endless repetition, words only). Compared are the official
generate + evaluate, our verdicts, and the official evaluate on the result files that we wrote. Makes the official
environment (half a gigabyte) where it is not there yet.
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

from fakes.bfcl_brain import MODEL, BfclBrain  # noqa: E402
from fakes.openai_server import FakeOpenAI, Running  # noqa: E402

from muarl_cli.benchmarks.bfcl_package import CATEGORIES, environment, official_environment, open_package  # noqa: E402
from muarl_cli.records.log import iter_episodes  # noqa: E402

WRAPPER = """
import os, sys
from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING, ModelConfig
from bfcl_eval.model_handler.api_inference.openai_completion import OpenAICompletionsHandler
MODEL_CONFIG_MAPPING[NAME] = ModelConfig(
    model_name=NAME, display_name=NAME, url="", org="", license="", model_handler=OpenAICompletionsHandler,
    input_price=None, output_price=None, is_fc_model=True, underscore_to_dot=True)
from bfcl_eval.__main__ import cli
cli()
"""


def official(split: str, folder: Path, url: str, *arguments: str) -> None:
    """Run the official command line with our model name registered."""
    wrapper = folder / "wrapper.py"
    wrapper.write_text(WRAPPER.replace("NAME", repr(MODEL)))
    env = {**os.environ, "BFCL_PROJECT_ROOT": str(folder), "OPENAI_API_KEY": "x", "OPENAI_BASE_URL": url}
    python = str(official_environment(split).python)
    done = subprocess.run([python, str(wrapper), *arguments], env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: official {arguments[0]} failed: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def failing(folder: Path, category: str) -> set[str]:
    """Ids that the official evaluator failed; its score file has a head and a row a failure."""
    (path,) = folder.glob(f"score/**/*{category}_score.json")
    head, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert head["total_count"] - head["correct_count"] == len(rows), head
    return {row["id"] for row in rows}


def compare(split: str, category: str) -> dict[str, Any]:
    """One category, both ways."""
    loaded = open_package(split).category(category)
    brain = BfclBrain(loaded.entries, together=category == "parallel")
    fake = FakeOpenAI(brain, keep_requests=False)
    with tempfile.TemporaryDirectory() as place, Running(fake) as url:
        folder = Path(place)
        theirs, again = folder / "theirs", folder / "again"
        theirs.mkdir()
        again.mkdir()
        common = ("--model", MODEL, "--test-category", loaded.name)
        official(split, theirs, url, "generate", *common, "--num-threads", "8", "--exclude-state-log")
        official(split, theirs, url, "evaluate", *common)
        command = [sys.executable, "-m", "muarl_cli", "eval", "--tasks", f"bfcl:{category}:{split}", "--trials", "1"]
        more = ["--model", MODEL, "--base-url", url, "--no-floors", "--out", str(folder / "ours"), "--json"]
        subprocess.run([*command, *more], check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
        episodes = list(iter_episodes(folder / "ours"))
        shutil.copytree(folder / "ours" / "official", again, dirs_exist_ok=True)
        official(split, again, url, "evaluate", *common)
        ids = {entry["id"] for entry in loaded.entries}
        fail, refail = failing(theirs, loaded.name), failing(again, loaded.name)
        ours = {e.task_id for e in episodes if e.reward == 1.0}
        types: dict[str, int] = {}
        for episode in episodes:
            kind = episode.detail.get("error_type") or ("passed" if episode.reward == 1 else episode.end.reason.value)
            types[kind] = types.get(kind, 0) + 1
        return {
            "entries": len(ids),
            "official_passed": len(ids - fail),
            "ours_passed": len(ours),
            "agree": sum((i in ours) == (i not in fail) for i in ids),
            "evaluator_on_ours_agrees": sum((i in ours) == (i not in refail) for i in ids),
            "differ": sorted(i for i in ids if (i in ours) == (i in fail)),
            "verdicts": types,
        }


def main() -> None:
    chosen = sys.argv[1:]
    split = next((name for name in chosen if name in ("v3", "v4")), "v4")
    categories = [name for name in chosen if name in CATEGORIES] or list(CATEGORIES)
    for needed in (environment(split), official_environment(split)):
        needed.create(lambda line: print(line, file=sys.stderr))
    found = {name: compare(split, name) for name in categories}
    total = {key: sum(row[key] for row in found.values()) for key in ("entries", "agree", "evaluator_on_ours_agrees")}
    print(json.dumps({"split": split, **total, "categories": found}, indent=1))


if __name__ == "__main__":
    main()
