"""The off-policy mask against TRL's frozen numbers, and what it leaves out of the fixtures' batches: prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from parity.test_losses_parity import ORACLES, SET, distance, flat  # noqa: E402

from muarl_cli.training.losses import off_policy_kept  # noqa: E402


def main() -> None:
    worst, tokens, masked, of_successes = 0.0, 0, 0, 0
    for batch in ORACLES["batches"]:
        worst = max(worst, *distance("trl/off_policy_mask", batch))
        _, v = flat(batch["inputs"])
        kept = off_policy_kept(v["policy"], v["engine"], v["advantage"], v["sequence"], SET["mask"])
        tokens, masked = tokens + len(kept), masked + int((~kept).sum())
        of_successes += int((~kept & (v["advantage"] >= 0)).sum())
    document = {"worst": worst, "tokens": tokens, "masked": masked, "masked_successes": of_successes}
    print(json.dumps({"trl": ORACLES["packages"]["trl"], "batches": len(ORACLES["batches"]), **document}))


if __name__ == "__main__":
    main()
