"""A small model in a template that opens the thought in the prompt and writes calls between tags: fine-tuned on one
recorded conversation, it holds that conversation."""

from __future__ import annotations

from fakes.desk import Parrot, hold, policy, stage
from fakes.templates import FIT, template_tokenizer

from muarl_cli.conversation.events import Kind
from muarl_cli.conversation.protocols import Owner
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.engines.hf import HFEngine
from muarl_cli.training.demonstrations import encode_episode
from muarl_cli.training.sft import SftSpec, SftTrainer
from muarl_cli.training.template_format import open_format
from muarl_cli.training.tiny_model import TinySpec, new_model


def test_a_model_that_learned_calls_between_tags_calls_with_values_of_the_right_kind() -> None:
    tokenizer = template_tokenizer(FIT["opens the thought in the prompt"])
    chat, told = open_format(tokenizer, "compact", "own"), stage()
    call = ToolCall("call_0", "get_order", {"order_id": "48213"})
    turns = [
        chat.demonstrate("Wait.", [call], told.tools, "return order"),
        chat.demonstrate("Hello", [], told.tools, "wait"),
        chat.demonstrate("and wait", [], told.tools),
    ]
    teacher = policy(Parrot(turns), chat, max_turn_tokens=80, max_context=900).open(told, None)
    shown = hold(teacher)
    rows = encode_episode(told, shown.events, chat)
    assert [row.ids for row in rows] == [
        row.ids[: len(made.ids)] for row, made in zip(teacher.rows(), rows, strict=True)
    ]
    model = new_model(TinySpec(2, 64, 4, 4, 16, len(tokenizer), max_length=1024), tokenizer, 3)
    spec = SftSpec(len(rows), 4096, 0, 60, 5e-3, "cosine", 4, 0.0, (0.9, 0.95), 1.0)
    trainer = SftTrainer(model, rows, spec, seed=1)
    while not trainer.done:
        trainer.step()
    player = policy(HFEngine(model, "fp32"), chat, temperature=0.01, max_turn_tokens=80).open(told, None)
    played = hold(player)
    assert [(e.actor, e.kind, e.text, e.thought, e.call) for e in played.events] == [
        (e.actor, e.kind, e.text, e.thought, e.call) for e in shown.events
    ]
    assert [e.call.arguments for e in played.events if e.kind is Kind.CALL and e.call] == [{"order_id": "48213"}]
    drawn = [i for row in player.rows() for i, owner in zip(row.ids, row.owners, strict=True) if owner == Owner.AGENT]
    assert drawn == [i for turn in turns for i in turn]
