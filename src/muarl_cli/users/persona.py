"""Personas: how a model-worded user talks, drawn per rollout from weighted axes.

A persona is one choice an axis (verbosity, politeness, style); it changes how things are said, never what. Invariant:
the draw depends on the rollout's seed and the weights alone, its name says all of it and is logged, and without weights
there is no persona and nothing is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed

# Numbers instead of adjectives: models exaggerate "terse" or "rude" each in their own way.
AXES: dict[str, dict[str, str]] = {
    "verbosity": {
        "terse": "Use at most eight words a message, names and numbers not counted.",
        "standard": "Use one or two sentences a message.",
        "chatty": "Use three or four sentences a message, without adding facts.",
    },
    "politeness": {
        "polite": "Say please or thank you in every second message.",
        "neutral": "",
        "blunt": "Never say please, thank you or sorry.",
    },
    "style": {
        "plain": "",
        "lowercase": "Write without capital letters and without a full stop at the end.",
        "formal": "Write complete sentences, without contractions.",
        "typos": "Make one typing slip a message, never in a name, a number or an id.",
    },
}
"""axis to its choices, each with the sentence that the model is told ("" for nothing)"""


@dataclass(frozen=True)
class Persona:
    """One drawn persona. `name` is what the log holds: "verbosity=terse,style=typos"; "" is no persona at all."""

    name: str = ""
    directions: str = ""
    """sentences for the prompt"""


def check_weights(weights: Mapping[str, Mapping[str, float]]) -> None:
    """Raises `MuarlError` (config) for an axis or choice that does not exist, or weights that cannot be drawn from."""
    for axis, choices in weights.items():
        if axis not in AXES:
            raise _bad(f"unknown persona axis {axis!r}", f"one of: {', '.join(AXES)}")
        for choice, weight in choices.items():
            if choice not in AXES[axis]:
                raise _bad(f"unknown {axis} {choice!r}", f"one of: {', '.join(AXES[axis])}")
            if not 0 <= weight < float("inf"):
                raise _bad(f"the weight of {axis} {choice} is {weight}", "weights are numbers from 0")
        if sum(choices.values()) <= 0:
            example = f"{{{axis}: {{{next(iter(AXES[axis]))}: 1}}}}"
            raise _bad(f"the persona axis {axis} has no weight above 0", f"for example {example}")


def draw_persona(weights: Mapping[str, Mapping[str, float]], seed: int) -> Persona:
    """The persona of the rollout with this seed; each axis is drawn on its own."""
    names, directions = [], []
    for axis in (axis for axis in AXES if axis in weights):
        choices = {name: weights[axis][name] for name in AXES[axis] if weights[axis].get(name, 0) > 0}
        rng = random.Random(derive_seed(seed, "user-persona", axis))
        name = rng.choices(list(choices), list(choices.values()))[0]
        names.append(f"{axis}={name}")
        directions.append(AXES[axis][name])
    return Persona(",".join(names), " ".join(filter(None, directions)))


def _bad(what: str, step: str) -> MuarlError:
    return MuarlError(what, where="user.personas", next_step=step, code=ExitCode.CONFIG)
