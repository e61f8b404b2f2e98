"""Which back-end and which persona a rollout's user has: drawn from shares and weights by the rollout's seed.

Invariant: the draw depends on the seed and the settings alone, so that the same rollout always meets the same kind of
user; back-ends that no model words have no persona, and the log never names one for them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muarl_cli.hashing import derive_seed
from muarl_cli.users.persona import Persona, check_weights, draw_persona

WORDED = frozenset({"llm", "hf", "replay"})
"""back-ends whose words come from a model (a recorded one where it is replayed)"""


@dataclass(frozen=True)
class Draw:
    """The user of one rollout."""

    backend: str
    persona: Persona


class Mixture:
    """Shares of back-ends (name, share) and weights of persona axes. Raises `MuarlError` for weights that are none."""

    def __init__(self, shares: Sequence[tuple[str, float]], personas: Mapping[str, Mapping[str, float]]) -> None:
        check_weights(personas)
        self.shares, self.personas = tuple(shares), personas

    def draw(self, seed: int) -> Draw:
        names, weights = zip(*self.shares, strict=True)
        backend = str(random.Random(derive_seed(seed, "user-kind")).choices(names, weights)[0])
        return Draw(backend, draw_persona(self.personas, seed) if backend in WORDED else Persona())
