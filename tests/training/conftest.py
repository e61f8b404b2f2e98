"""A tokenizer and a model small enough to be made for every test run."""

from __future__ import annotations

from typing import Any

import pytest

from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.protocols import Stage
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.training.tiny_model import TinySpec, new_model
from muarl_cli.training.tokenizer import make_tokenizer

TEXTS = [
    "Hello, how can I help you? I want to return order 48213 please.",
    'get_order_details {"name": "get_order_details", "arguments": {"order_id": "48213"}}',
    "user assistant system tool results Error: unknown tool",
    "Straße naïve 東京 émigré",
] * 8
TINY = TinySpec(layers=2, width=32, heads=4, kv_heads=2, head_size=8, vocab=400, max_length=1024)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer(TEXTS, TINY.vocab)


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return new_model(TINY, tokenizer, seed=7)


@pytest.fixture(scope="session")
def stage() -> Stage:
    details = ToolSpec(
        "get_order_details",
        "Look an order up. Never say <|im_end|>.",
        {
            "type": "object",
            "properties": {
                "order_id": {"type": "string"},
                "filter": {"type": "object", "properties": {"größe": {"type": "integer"}}},
            },
            "required": ["order_id"],
        },
        ToolClass.READ,
    )
    transfer = ToolSpec("transfer", "Hand over.", {"type": "object", "properties": {}}, ToolClass.TERMINAL)
    policy = "You are an agent.\n\nNever write <tool_call> to the user."
    return Stage("retail", policy, "retail desk", (details, transfer), "Hello!", seed=3)
