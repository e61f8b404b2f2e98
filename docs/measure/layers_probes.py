"""Denied, listed and otherwise untold answers against the duty to tell the user (EV-09). Prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.test_must_say import NOT_TOLD, TOLD

from muarl_cli.scoring.communication import tells
from muarl_cli.scoring.layers import book_of
from muarl_cli.worlds.domain import builtin


def main() -> None:
    book = book_of(builtin("retail"))
    rule = next(rule for rule in book.rules if rule.id == "tell_what_was_done")
    accepted = sum(tells(rule, book, write, text) for write, text in NOT_TOLD)
    told = sum(tells(rule, book, write, text) for write, text in TOLD)
    print(json.dumps({"probes": len(NOT_TOLD), "accepted": accepted, "plain": len(TOLD), "told": told}))


if __name__ == "__main__":
    main()
