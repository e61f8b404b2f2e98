"""Whether a corrupt success planted among clean ones in a TAU2-shaped log is found (and no other). Prints JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.test_rescore import tau2_episode, tau2_talk, write_log

from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.scoring.rescore import rescore


def main(folder: Path) -> None:
    ways = ({"confirm": False}, {"identify": False}, {"owner": "tom_2"})
    episodes = [tau2_episode(tau2_talk(), number) for number in range(7)]
    planted = [tau2_episode(tau2_talk(**way), 7 + place) for place, way in enumerate(ways)]
    log = write_log(folder / "run", [*episodes, *planted])
    rescore(log)
    corrupt = {key for key, row in read_verdicts(log).items() if row["layers"]["corrupt_success"]}
    ids = {episode.episode_id for episode in planted}
    print(json.dumps({"planted": len(ids), "found": len(corrupt & ids), "others": len(corrupt - ids)}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
