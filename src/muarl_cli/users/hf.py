"""A local checkpoint in this process as the user's voice, through the same engine and chat format as the policy.

Roles are flipped as everywhere: the agent's words are user turns of the format, the model's own its assistant turns.
Invariant: text of the agent can become no control token (the chat format sees to it), and the weights are not the
policy's, unless the same folder is named for both on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import Stage, Usage
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.engines.chat import ChatSampling, Finish, Reply
from muarl_cli.engines.protocol import Engine, Sampling
from muarl_cli.engines.protocol import Finish as Drawn
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.training.chat_format import ChatFormat, Rendering, TokenList

TOP_P = 1.0


class HfSpeaker:
    """Words from an engine. `model` is the name for the log, `context` the tokens a conversation may have."""

    def __init__(self, engine: Engine, tokenizer: Any, model: str, context: int) -> None:
        self.engine, self.model, self.context = engine, model, context
        self._chat = ChatFormat(tokenizer, Rendering.FULL)
        self._asked = 0

    async def reply(
        self, messages: Sequence[Mapping[str, Any]], sampling: ChatSampling, tools: Sequence[ToolSpec] = ()
    ) -> Reply:
        """Raises `InfraFault` where the engine fails, `ContextOverflow` where the messages leave no room. Tools are not
        shown to the model (`pipeline.parties` refuses the scenarios that need it)."""
        tokens = self.tokens(messages)
        room = self.context - len(tokens.ids)
        if room < 1:
            raise ContextOverflow(f"{len(tokens.ids)} tokens of {self.context}")
        drawing = Sampling(
            sampling.temperature,
            sampling.top_p or TOP_P,
            min(sampling.max_tokens, room),
            self._chat.stop_ids,
            sampling.seed or 0,
        )
        # the system turn says what to convey now and changes from turn to turn: nothing of a session is worth keeping
        self._asked += 1
        session = f"user-{self._asked:09d}"
        try:
            drawn = await self.engine.generate(tuple(tokens.ids), drawing, session)
        finally:
            self.engine.release(session)
        text = self._chat.text_of(drawn.ids).strip()
        cut = drawn.finish is Drawn.LENGTH
        finish = Finish.LENGTH if cut else Finish.STOP if text else Finish.EMPTY
        return Reply(text, finish, (), Usage(len(tokens.ids), len(drawn.ids)), self.model)

    def tokens(self, messages: Sequence[Mapping[str, Any]]) -> TokenList:
        """The messages in the chat format, up to where the model speaks."""
        chat, tokens = self._chat, TokenList()
        for message in messages:
            text = str(message["content"])
            if message["role"] == "system":
                tokens.extend(chat.begin(Stage("", text, "", (), "", 0)))
            elif message["role"] == "assistant":
                tokens.extend(chat.greeting(text))
            else:
                tokens.extend(chat.user(text))
        tokens.extend(chat.generation_prompt())
        return tokens


def open_hf_speaker(model: str, warn: Callable[[object], None] = lambda line: None) -> HfSpeaker:
    """The speaker of a model folder, a checkpoint or a run. Raises `MuarlError` where it cannot be loaded."""
    import torch

    from muarl_cli.engines.hf import HFEngine
    from muarl_cli.records.checkpoint import resolve_model_path
    from muarl_cli.training.tiny_model import load_model
    from muarl_cli.training.tokenizer import load_tokenizer

    folder = resolve_model_path(Path(model), warn)
    dtype = "bf16" if torch.cuda.is_available() else "fp32"
    engine = HFEngine(load_model(folder, dtype), dtype)
    return HfSpeaker(engine, load_tokenizer(folder), folder.name, engine.context)
