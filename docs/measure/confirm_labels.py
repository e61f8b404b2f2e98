"""The confirm rule against hand-labelled writes (tests/scoring/confirm*.yaml). Prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.test_confirm import agreement, conversations, turns


def main() -> None:
    rows = turns() + conversations()
    precision, recall, wrong = agreement(rows)
    print(json.dumps({
        "labelled": len(rows),
        "agreed": sum(row[1] for row in rows),
        "precision": precision,
        "recall": recall,
        "wrong": [{"said": text, "agreed": truth} for text, truth, _ in wrong],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
