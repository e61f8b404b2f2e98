"""Who the user of a rollout is: drawn by its seed, in the given shares, named in the log, and nothing by default."""

from __future__ import annotations

from collections import Counter

import pytest

from muarl_cli.errors import MuarlError
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve
from muarl_cli.users.mixture import Mixture
from muarl_cli.users.persona import AXES, Persona, draw_persona

WEIGHTS = {"verbosity": {"terse": 0.75, "chatty": 0.25}, "style": {"typos": 1.0, "plain": 0.0}}


def test_without_weights_there_is_no_persona_at_all() -> None:
    assert draw_persona({}, 5) == Persona("", "")
    assert resolve(Stage.ROLLOUT, environ={}).flat()["user.personas"] == {}


def test_the_same_seed_draws_the_same_user_and_seeds_differ() -> None:
    mixture = Mixture([("scripted", 0.5), ("llm", 0.5)], WEIGHTS)
    draws = [mixture.draw(seed) for seed in range(200)]
    assert draws == [mixture.draw(seed) for seed in range(200)]
    assert len({draw.backend for draw in draws}) == 2 and len({draw.persona.name for draw in draws}) == 3


def test_shares_and_weights_are_kept() -> None:
    mixture = Mixture([("scripted", 0.6), ("llm", 0.4)], WEIGHTS)
    draws = [mixture.draw(seed) for seed in range(4000)]
    kinds = Counter(draw.backend for draw in draws)
    personas = Counter(draw.persona.name for draw in draws if draw.backend == "llm")
    assert abs(kinds["llm"] / 4000 - 0.4) < 0.03
    assert abs(personas["verbosity=terse,style=typos"] / kinds["llm"] - 0.75) < 0.04
    assert set(personas) == {"verbosity=terse,style=typos", "verbosity=chatty,style=typos"}


def test_a_user_that_no_model_words_has_no_persona() -> None:
    assert all(Mixture([(name, 1.0)], WEIGHTS).draw(1).persona == Persona() for name in ("scripted", "human"))


def test_a_personas_directions_are_those_of_its_name() -> None:
    persona = draw_persona({"politeness": {"blunt": 1}, "verbosity": {"terse": 1}}, 9)
    assert persona.name == "verbosity=terse,politeness=blunt"
    assert persona.directions == f"{AXES['verbosity']['terse']} {AXES['politeness']['blunt']}"


@pytest.mark.parametrize(
    ("weights", "words"),
    [("{mood: {sad: 1}}", "axis 'mood'"), ("{style: {poetic: 1}}", "'poetic'"), ("{style: {plain: 0}}", "above 0")],
)
def test_weights_that_are_none_are_refused_with_what_would_do(weights: str, words: str) -> None:
    with pytest.raises(MuarlError, match=words) as error:
        resolve(Stage.ROLLOUT, overrides=[f"user.personas={weights}"], environ={})
    assert error.value.next_step


def test_a_mixture_whose_parts_need_different_models_is_refused(tmp_path: object) -> None:
    from pathlib import Path

    from muarl_cli.pipeline.parties import Users

    flat = ["user.backend=llm=0.5,replay=0.5", "user.model=x"]
    settings = resolve(Stage.ROLLOUT, overrides=flat, environ={}).settings
    with pytest.raises(MuarlError, match=r"llm and replay"):
        Users(settings.user, {}, 0.0, Path(str(tmp_path)))  # type: ignore[attr-defined]
