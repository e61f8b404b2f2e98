"""Random models of the size that the engine contract needs, as modules and as folders that vLLM can serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from engines import contract

CLOSE = 2e-3
"""how far two implementations of the same fp32 arithmetic are apart, at most"""


def make_model(seed: int = 0, tied: bool = True) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=contract.VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,  # the least that vLLM has a CPU kernel for
            max_position_embeddings=2048,
            initializer_range=0.2,
            tie_word_embeddings=tied,
        )
    ).eval()


def save(model: Any, folder: Path) -> Path:
    """A model folder with a tokenizer, which vLLM asks for even where only token ids travel."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    plain = Tokenizer(models.WordLevel({f"w{i}": i for i in range(contract.VOCAB)}, unk_token="w0"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="w1", eos_token="w3").save_pretrained(folder)
    return folder


def adapted(base: Any, seed: int) -> Any:
    """`base` with an adapter of rank 8 that changes what it computes."""
    import peft

    model = peft.get_peft_model(base, peft.LoraConfig(r=8, target_modules="all-linear")).eval()
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model
