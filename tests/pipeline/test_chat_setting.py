"""`chat`: which template a policy's conversations are held in, and what a checkpoint says of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.templates import FIT, UNFIT, template_tokenizer
from fakes.vllm_like_server import VllmLikeServer

from muarl_cli.errors import MuarlError
from muarl_cli.pipeline.policy import Policy, load_policy, open_policy
from muarl_cli.training.chat_format import ChatFormat, chat_template
from muarl_cli.training.template_format import TemplateFormat
from muarl_cli.training.tiny_model import TinySpec, format_of, new_model, save_model

SPEC = TinySpec(2, 32, 4, 2, 8, 450, max_length=512)


class Quiet:
    def say(self, text: object) -> None: ...

    warn = show = say

    def progress(self, total: int, label: str) -> Any: ...


def load(folder: Path, chat: str) -> Policy:
    return load_policy(str(folder), "auto", "float32", Quiet(), weights=False, chat=chat)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = template_tokenizer()
    save_model(new_model(SPEC, tokenizer, 1), tokenizer, tmp_path / "m", "compact")
    return tmp_path / "m"


def test_the_setting_chooses_the_template_and_with_it_what_may_be_trained_on_as_sampled(folder: Path) -> None:
    silent, thinking = load(folder, "auto"), load(folder, "thinking")
    assert type(silent.chat()) is ChatFormat and isinstance(thinking.chat(), TemplateFormat)
    assert (silent.dialect, thinking.dialect) == ("nonthinking", "thinking")
    assert thinking.revision != silent.revision
    prompts = [[ids for ids, _ in policy.chat().generation_prompt()] for policy in (silent, thinking)]
    assert len(prompts[0][0]) > len(prompts[1][0])


@pytest.mark.parametrize("limit", [300, 4096])
def test_a_conversation_ends_where_the_model_can_hold_no_more_whatever_the_settings_allow(
    folder: Path, limit: int
) -> None:
    limits = SimpleNamespace(max_turn_tokens=16, max_context=limit)
    settings = SimpleNamespace(temperature=1.0, top_p=1.0, limits=limits, model=str(folder))
    for weights in (True, False):
        policy = load_policy(str(folder), "auto", "float32", Quiet(), weights=weights)
        engine = None if weights else object()
        assert policy.agent(settings, "0", engine).max_context == min(limit, SPEC.max_length)
    smaller: Any = SimpleNamespace(context=200)  # a server that was started with less room
    assert policy.agent(settings, "0", smaller).max_context == 200


@pytest.mark.parametrize("dialect", ["nonthinking", "thinking"])
def test_a_checkpoint_says_which_of_our_templates_it_was_trained_in(folder: Path, dialect: str) -> None:
    policy = load(folder, dialect)
    out = folder.with_name("next")
    save_model(new_model(SPEC, policy.tokenizer, 1), policy.tokenizer, out, policy.rendering, dialect=policy.dialect)
    assert format_of(out) == ("compact", dialect)
    assert load(out, "auto").dialect == dialect
    written = (out / "chat_template.jinja").read_text(encoding="utf-8")
    assert written == chat_template("compact", thinking=dialect == "thinking")


def test_a_checkpoints_own_template_is_kept_when_it_is_saved(folder: Path) -> None:
    own = FIT["strips blanks"]
    (folder / "chat_template.jinja").write_text(own, encoding="utf-8")
    policy = load(folder, "own")
    assert isinstance(policy.chat(), TemplateFormat)
    out = folder.with_name("next")
    save_model(new_model(SPEC, policy.tokenizer, 1), policy.tokenizer, out, policy.rendering, dialect=policy.dialect)
    assert (out / "chat_template.jinja").read_text(encoding="utf-8") == own
    assert load(out, "own").revision == policy.revision != load(out, "nonthinking").revision


def test_a_template_that_fails_its_probes_stops_the_stage_before_it_plays(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(UNFIT["forgets words"][1], encoding="utf-8")
    with pytest.raises(MuarlError, match="fails the probe"):
        load(folder, "own").chat()


def test_a_server_that_is_named_twice_is_one_server(folder: Path, tmp_path: Path) -> None:
    """Two of it would give it every adapter twice, which it refuses."""
    policy = load(folder, "auto")
    with VllmLikeServer(new_model(SPEC, policy.tokenizer, 1)) as server:
        limits = SimpleNamespace(max_turn_tokens=16, max_context=300)
        named = [server.url, f"{server.url}/"]
        settings = SimpleNamespace(
            engines=named, in_flight=4, temperature=1.0, top_p=1.0, limits=limits, model=str(folder)
        )
        assert len(open_policy(policy, settings, "0", tmp_path).wires) == 1
