"""Rows of other formats: a cold start exported in both formats and imported again, and rows in the released dataset's
form with its odd wrapper, good and bad ones. Prints JSON: rows, those that came back with the same words, calls and
answers, and what became of the bad ones."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from coldstart_offline import muarl
from pipeline.test_dataset import APIGEN, BAD, _content, released

from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts

COUNT, RELEASED = 100, 50


def same(cold: Path, again: Path, form: str) -> int:
    """How many imported conversations are those that were exported (sharegpt leaves out the greeting and the end)."""
    after = {episode.task_id: _content(episode.events) for episode in iter_episodes(again)}
    good = 0
    for episode in iter_episodes(cold):
        ours: list[Any] = _content(episode.events)
        theirs = after.get(episode.episode_id)
        if theirs is not None:
            good += theirs == (ours if form == "openai" else ours[1 : 1 + len(theirs)])
    return good


def main() -> None:
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        cold = Path(place) / "cold"
        muarl("synth-coldstart", "--scenarios", "retail,library", "--count", str(COUNT), "--out", str(cold))
        accepted = sum(row["accepted"] for row in read_verdicts(cold).values())
        for form in ("openai", "sharegpt"):
            file, again = Path(place) / f"{form}.jsonl", Path(place) / form
            rows = muarl("export", "chat", str(cold), "--format", form, "--out", str(file))["rows"]
            imported = muarl("import", "dataset", str(file), "--out", str(again))["imported"]
            result[form] = {"exported": rows, "imported": imported, "same": same(cold, again, form)}
        rows_file = Path(place) / "rows.jsonl"
        good = [released(n) for n in range(RELEASED)] + [APIGEN]
        lines = [row if isinstance(row, str) else json.dumps(row) for row in [*good, *(row for row, _ in BAD)]]
        rows_file.write_text("\n".join(lines) + "\n")
        mixed = muarl("import", "dataset", str(rows_file), "--out", str(Path(place) / "mixed"))
    result |= {"accepted": accepted, "good": len(good), "bad": len(BAD)}
    print(json.dumps(result | {"read": mixed["imported"], "refused": mixed["refused"], "passed": mixed["accepted"]}))


if __name__ == "__main__":
    main()
