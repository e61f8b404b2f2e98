"""What a launcher (torchrun, DeepSpeed's) tells a process about itself, in the environment. Imports nothing heavy."""

from __future__ import annotations

import os


def is_rank() -> bool:
    """Whether a launcher started this process, as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def follows() -> bool:
    """Whether another process leads: speaks to the person and writes the run folder."""
    return is_rank() and os.environ["RANK"] != "0"
