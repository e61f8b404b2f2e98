"""How far each loss and its gradient are from the peers' frozen numbers: the largest absolute difference over all
batches of `tests/parity/fixtures/losses.json`. Prints JSON."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests" / "parity" / "test_losses_parity.py"


def main() -> None:
    spec = importlib.util.spec_from_file_location("losses_parity", TESTS)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    table = {}
    for case in sorted(module.OURS):
        found = [module.distance(case, batch) for batch in module.ORACLES["batches"]]
        table[case] = {"loss": max(loss for loss, _ in found), "gradient": max(grad for _, grad in found)}
    worst = max(value for row in table.values() for value in row.values())
    print(json.dumps({"packages": module.ORACLES["packages"], "cases": len(table), "worst": worst, "table": table}))


if __name__ == "__main__":
    main()
