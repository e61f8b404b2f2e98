"""How many optimiser steps fine-tuning takes: arithmetic that a dry run needs as well, and so without torch.

Invariant: a plan and the run that it is of count alike. An epoch's last, smaller batch is a step too; of two limits the
nearer one counts; 0 means that neither is set and only the caller knows when to stop.
"""

from __future__ import annotations

import math


def steps_an_epoch(rows: int, batch: int) -> int:
    """Optimiser steps of one pass over `rows` rows."""
    return math.ceil(rows / batch)


def sft_steps(rows: int, batch: int, epochs: float, max_steps: int) -> int:
    """Optimiser steps in all: by `epochs` or `max_steps`, whichever ends sooner, 0 = no such limit."""
    by_epochs = math.ceil(epochs * steps_an_epoch(rows, batch) - 1e-9)
    return min((limit for limit in (by_epochs, max_steps) if limit > 0), default=0)
