"""Conversations that drift when they are rendered and tokenised again: what is kept, and what that way would lose.

    python docs/measure/drift.py

The corpus is that of tests/training/test_drift_corpus.py, held through the real loop with an engine that draws the
given ids. `trained` counts the sampled tokens that are the agent's in exactly one row, as sampled; `rerendered` is what
parsing, rendering with the template and tokenising the whole conversation makes of the same turns. Prints one JSON
document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.drift import ALL_CASES, corpus_tokenizer, hold_case, rerendered

from muarl_cli.conversation.protocols import Owner


def main() -> None:
    tokenizer = corpus_tokenizer()
    cases, sampled, trained, turns, changed, lost = {}, 0, 0, 0, 0, 0
    for name in ALL_CASES:
        held = hold_case(name, tokenizer)
        drawn = [token for turn in held.turns for token in turn]
        kept = [i for row in held.rows for i, o in zip(row.ids, row.owners, strict=True) if o == Owner.AGENT]
        again = rerendered(held)
        differ = [ours != theirs for ours, theirs in zip(held.turns, again, strict=True)]
        cases[name] = {"turns": len(differ), "rerendered_otherwise": sum(differ), "rows": len(held.rows)}
        sampled, trained = sampled + len(drawn), trained + (len(drawn) if kept == drawn else 0)
        turns, changed = turns + len(differ), changed + sum(differ)
        lost += sum(len(turn) for turn, other in zip(held.turns, differ, strict=True) if other)
    print(
        json.dumps(
            {
                "sampled": sampled,
                "trained": trained,
                "share": trained / sampled,
                "turns": turns,
                "rerendered_otherwise": changed,
                "rerendered_otherwise_share": changed / turns,
                "tokens_in_those": lost / sampled,
                "cases": cases,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
