"""A small tokenizer made from given texts: byte-level BPE with single digits.

Digits never merge, so that copying an identifier is a matter of attention and not of vocabulary; words keep their
underscores, so that a frequent tool name is one token; every control marker of the chat format is one id. Saved as an
ordinary Hugging Face folder, with the chat template beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from muarl_cli.training.chat_format import END, START, STOP, Rendering, chat_template

CONTROL_TOKENS = (
    START,
    END,
    STOP,
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
_PRE_TOKENS = r"\p{N}| ?[\p{L}\p{M}_]+| ?[^\s\p{L}\p{M}\p{N}_]+|\s+(?!\S)|\s+"
"""one digit; a word with its leading blank; a run of signs; blanks"""


def make_tokenizer(texts: Iterable[str], vocab: int) -> Any:
    """Train a tokenizer of `vocab` entries in all (at least 256 bytes and the control tokens).

    Deterministic in the texts and their order. Returns a transformers fast tokenizer without a chat template.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    smallest = 256 + len(CONTROL_TOKENS)
    if vocab < smallest:
        raise ValueError(
            f"a byte-level vocabulary with its control tokens has at least {smallest} entries, not {vocab}"
        )
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bare.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, eos_token=END, pad_token=STOP, clean_up_tokenization_spaces=False
    )


def save_tokenizer(tokenizer: Any, folder: Path, rendering: Rendering | str) -> None:
    """Write tokenizer files and the `chat_template.jinja` of this rendering."""
    tokenizer.chat_template = chat_template(rendering)
    tokenizer.save_pretrained(str(folder))


def load_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a model folder; code inside the folder is never run."""
    from transformers import AutoTokenizer

    from muarl_cli.training.tiny_model import require_model_folder

    require_model_folder(Path(path), "tokenizer.json")
    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)
    # How it was loaded would be saved with it: a resumed run's checkpoint would differ from a straight one's.
    kept = getattr(tokenizer, "init_kwargs", {})
    for name in ("is_local", "local_files_only"):
        kept.pop(name, None)
    return tokenizer
