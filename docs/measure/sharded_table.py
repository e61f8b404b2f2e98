"""How far two sharded processes are from one plain process after four GRPO steps of a toy model, and whether a resume
from the files that the ranks wrote gives the same bits. Real processes under torchrun, over gloo. Prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS))

from fakes.ranked import CASES, model_of, steps, trainer_of  # noqa: E402


def main() -> None:
    exact = [name for name, case in CASES.items() if case.dtype == "fp32"]
    with tempfile.TemporaryDirectory() as folder:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        program = [str(TESTS / "fakes" / "ranked.py"), folder, *exact]
        subprocess.run(
            [*start, *program], check=True, stdout=sys.stderr, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=900
        )
        seen = {name: json.loads((Path(folder) / f"{name}.json").read_text()) for name in exact}
    table = {}
    for name in exact:
        trainer = trainer_of(CASES[name], model_of(CASES[name]))
        metrics = steps(trainer, CASES[name], 0, 4)
        weights = {key: value.flatten().tolist() for key, value in trainer.optimiser.weights().items()}
        two = seen[name]
        table[name] = {
            "weights": max(
                abs(a - b) for key in weights for a, b in zip(two["weights"][key], weights[key], strict=True)
            ),
            "loss": max(
                abs(a.get("loss", 0.0) - b.get("loss", 0.0)) for a, b in zip(two["metrics"], metrics, strict=True)
            ),
            "resumes": two["resumed"] == two["weights"],
        }
    print(
        json.dumps(
            {
                "cases": len(table),
                "worst_weight": max(row["weights"] for row in table.values()),
                "worst_loss": max(row["loss"] for row in table.values()),
                "resumed": sum(row["resumes"] for row in table.values()),
                "table": table,
            }
        )
    )


if __name__ == "__main__":
    main()
