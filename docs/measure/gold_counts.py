"""Sums the gold counts of `muarl bench check NAME --json` by split: reads it on stdin, prints one JSON document."""

from __future__ import annotations

import json
import sys

KEYS = ("tasks", "passed", "corrupted", "corrupted_failed", "scorer_passed")


def main() -> None:
    found: dict[str, dict[str, int]] = {}
    for row in json.load(sys.stdin)["sets"]:
        total = found.setdefault(row["set"].rsplit(":", 1)[1], dict.fromkeys((*KEYS, "known", "sets"), 0))
        for key in KEYS:
            total[key] += row[key]
        total["known"] += len(row["known_failures"])
        total["sets"] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main()
