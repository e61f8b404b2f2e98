"""The end-to-end tests of training on several ranks: real `muarl` processes under torchrun and DeepSpeed's launcher,
killed and run again. Prints JSON."""

from __future__ import annotations

import json

from passing import passing

if __name__ == "__main__":
    print(json.dumps(passing("tests/e2e/test_ranks.py")))
