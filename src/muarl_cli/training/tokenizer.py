"""A small tokenizer made from given texts: byte-level BPE with single digits.

Digits never merge, so that copying an identifier is a matter of attention and not of vocabulary; words keep their
underscores, so that a frequent tool name is one token; a word that is copied between talk and calls is the same token
in both (`the kettle` and `"kettle"`: its leading blank stays apart), since a model of this size does not learn which
two tokens are one word; every control marker of the chat format is one id. Saved as an ordinary Hugging Face folder,
with the chat template beside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from muarl_cli.training.chat_format import END, START, STOP, Rendering, chat_template
from muarl_cli.training.template_format import Dialect

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
_COPIED_WORDS = 500
"""at most this many words get a token that does not depend on the blank before it"""


def copied_words(texts: Iterable[str]) -> list[str]:
    """Words that open a quoted value or stand before a colon at the start of a line, and follow a blank elsewhere: what
    is copied from talk into calls and proposals."""
    quoted: Counter[str] = Counter()
    spoken: set[str] = set()
    for text in texts:
        quoted.update(re.findall(r'"([^\W\d_]+)(?!\w)', text) + re.findall(r"^([^\W\d_]+)(?=:)", text, re.MULTILINE))
        spoken.update(re.findall(r"(?<=[ \n])([^\W\d_]+)(?!\w)", text))
    both = [word for word, _ in sorted(quoted.items(), key=lambda item: (-item[1], item[0])) if word in spoken]
    return sorted(both[:_COPIED_WORDS])


def _pre_tokens(words: list[str]) -> str:
    """One digit; a copied word without its blank; any other word with its leading blank; a run of signs; blanks."""
    ending = r"(?![\p{L}\p{M}_])"
    copied = rf"(?:{'|'.join(map(re.escape, words))}){ending}" if words else r"(?!)"
    return (
        rf"\p{{N}}|(?<![\p{{L}}\p{{M}}_]){copied}| ?(?!{copied})[\p{{L}}\p{{M}}_]+"
        r"| ?[^\s\p{L}\p{M}\p{N}_]+|\s+(?!\S)|\s+"
    )


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
    texts = list(texts)
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_pre_tokens(copied_words(texts))), behavior="isolated"),
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


def save_tokenizer(
    tokenizer: Any, folder: Path, rendering: Rendering | str, dialect: Dialect | str = Dialect.NONTHINKING
) -> None:
    """Write tokenizer files and the `chat_template.jinja` of this rendering and dialect (a tokenizer's own stays)."""
    if Dialect(dialect) is not Dialect.OWN:
        tokenizer.chat_template = chat_template(rendering, Dialect(dialect) is Dialect.THINKING)
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
