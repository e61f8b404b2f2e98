"""Real processes with a checkpoint whose own template writes calls between tags, unlike any of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.stages import Place, summary
from fakes.templates import FIT, template_tokenizer

from muarl_cli.conversation.events import Kind
from muarl_cli.conversation.protocols import Owner
from muarl_cli.errors import MuarlError
from muarl_cli.pipeline.policy import load_policy
from muarl_cli.pipeline.sft_rows import rows_of
from muarl_cli.records.log import iter_episodes
from muarl_cli.training.tiny_model import TinySpec, new_model, save_model


@pytest.mark.slow
def test_demonstrations_rl_and_export_stay_in_a_checkpoints_own_template_unasked(tmp_path: Path) -> None:
    """`chat` is not set: the template is neither of ours, and its calls are not Qwen3's."""
    place, template = Place(tmp_path), FIT["closes the thought in the prompt"]
    tokenizer = template_tokenizer(template)
    model = new_model(TinySpec(2, 64, 4, 4, 16, len(tokenizer), max_length=4096), tokenizer, 1)
    save_model(model, tokenizer, tmp_path / "base", "compact", dialect="own")
    place.muarl(*place.command("synth-coldstart")[1:], "count=8")
    place.muarl(*place.command("sft")[1:], "--model", "base", "max_steps=2", "max_length=4096")
    assert "not_expressible" not in summary(place.folder("sft"))
    _a_call_that_cannot_be_written_leaves_its_episode_out_by_name(place)
    place.muarl(*place.command("rl-train")[1:], "--steps", "1", "limits.max_turns=3")
    books = summary(place.folder("rl-train"))["tokens"]
    assert books["sampled"] == books["trained"] + sum(books["left"].values()) > 0
    episodes = list(iter_episodes(place.folder("rl-train"), rows=True))
    assert all("-own-" in episode.agent["revision"] for episode in episodes)
    assert max(len(episode.rows) for episode in episodes) > 1
    for episode in episodes:
        sampled = sum(owner == Owner.AGENT for row in episode.rows for owner in row.owners)
        assert sampled == episode.usage["agent_tokens"]
    place.muarl("export", "model", "runs/rl-train", "--out", "exported")
    assert (tmp_path / "exported" / "chat_template.jinja").read_text(encoding="utf-8") == template


def _a_call_that_cannot_be_written_leaves_its_episode_out_by_name(place: Place) -> None:
    fine, other = list(iter_episodes(place.folder("synth-coldstart")))[:2]
    at, event = next((i, e) for i, e in enumerate(other.events) if e.kind is Kind.CALL)
    assert event.call is not None
    call = replace(event.call, arguments={"note": "said </parameter>"})
    spoiled = replace(other, events=(*other.events[:at], replace(event, call=call), *other.events[at + 1 :]))
    talk: Any = Heard()
    policy = load_policy(str(place.root / "base"), "auto", "float32", talk, weights=False)
    settings: Any = SimpleNamespace(max_length=100_000, eval_share=0.0)
    rows = rows_of(settings, policy.chat(), policy.revision, [fine, spoiled], talk)
    assert [episode.episode_id for episode, _ in rows.of] == [fine.episode_id] and rows.unsaid == 1
    (said,) = talk.warned
    assert spoiled.episode_id in said and "</parameter>" in said
    settings.max_length, settings.data = 10, ["runs/synth-coldstart"]
    with pytest.raises(MuarlError, match="nothing is left to learn from") as left:
        rows_of(settings, policy.chat(), policy.revision, [fine, spoiled], talk)
    assert "1 have a call" in left.value.why and " longer than 10 tokens" in left.value.why


class Heard:
    def __init__(self) -> None:
        self.warned: list[str] = []

    def say(self, text: object) -> None:
        """Not looked at."""

    def warn(self, text: object) -> None:
        self.warned.append(str(text))
