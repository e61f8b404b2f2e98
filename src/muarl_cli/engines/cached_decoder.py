"""A decoder's forward pass against a cache that rows of unequal length share.

It calls the model's own modules (so that adapters work) and replaces only what the library does for generality: mask
building, cache objects, a norm in six operations. Row b has `start[b]` tokens in the cache and is fed S more at the
places that follow; rows with fewer new tokens are padded on the right. Invariant: what padding leaves in the cache
lies beyond a row's last token, where the causal rule hides it until it is overwritten. Equality with the model's own
forward is tested.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from muarl_cli.errors import ExitCode, MuarlError

SUPPORTED = ("llama", "qwen2", "qwen3")
_ROPE = ("default", "linear", "llama3", "yarn")
"""kinds of rotary embedding whose angles depend on the position alone"""


class CachedDecoder:
    """The cached forward over a transformers causal language model of the Llama family (Qwen3 included).

    Cache layout: (layers, 2, rows, kv_heads, length, head_size), keys at 0 and values at 1.
    """

    def __init__(self, model: Any) -> None:
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        _require_supported(plain.config)
        self._head = plain.get_output_embeddings()
        self._body = plain.get_decoder()
        config = plain.config
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        self.head_size = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.layers = int(config.num_hidden_layers)
        self.max_length = int(config.max_position_embeddings)
        self._angles: tuple[Tensor, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = self._body.embed_tokens.weight.device
        return device

    def new_cache(self, rows: int, length: int, dtype: torch.dtype) -> Tensor:
        """An empty cache. Zeros, since whatever is hidden by the mask must still be a finite number."""
        shape = (self.layers, 2, rows, self.kv_heads, length, self.head_size)
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def cache_dtype(self, autocast: torch.dtype | None) -> torch.dtype:
        """What keys and values are kept in."""
        dtype: torch.dtype = autocast or self._body.embed_tokens.weight.dtype
        return dtype

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) in fp32 of hidden states (N, width)."""
        out: Tensor = self._head(hidden)
        return out.float()

    def forward(self, ids: Tensor, start: Tensor, cache: Tensor, width: int) -> Tensor:
        """Feed `ids` (B, S) to rows 0..B-1 of `cache`, row b from place start[b] on; `width` >= every place used.

        Returns the last layer's normed hidden states (B, S, width of the model).
        """
        rows, steps = ids.shape
        places = start[:, None] + torch.arange(steps, device=ids.device)
        hidden = self._body.embed_tokens(ids)
        cosine, sine = self._rotation(width, hidden)
        cosine, sine = cosine[places][:, :, None], sine[places][:, :, None]
        visible = torch.arange(width, device=ids.device) <= places[:, :, None]
        mask = torch.zeros(visible.shape, dtype=hidden.dtype, device=ids.device)
        mask = mask.masked_fill_(~visible, float("-inf"))[:, None]
        row_index = torch.arange(rows, device=ids.device)[:, None]
        for index, layer in enumerate(self._body.layers):
            attended = self._attend(layer, hidden, cosine, sine, mask, cache[index], row_index, places, width)
            hidden = hidden + attended
            hidden = hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))
        return _norm(self._body.norm, hidden)

    def _attend(
        self,
        layer: Any,
        hidden: Tensor,
        cosine: Tensor,
        sine: Tensor,
        mask: Tensor,
        cache: Tensor,
        row_index: Tensor,
        places: Tensor,
        width: int,
    ) -> Tensor:
        attention = layer.self_attn
        rows, steps, _ = hidden.shape
        normed = _norm(layer.input_layernorm, hidden)
        query = attention.q_proj(normed).view(rows, steps, self.heads, self.head_size)
        key = attention.k_proj(normed).view(rows, steps, self.kv_heads, self.head_size)
        value = attention.v_proj(normed).view(rows, steps, self.kv_heads, self.head_size)
        if hasattr(attention, "q_norm"):
            query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
        query, key = _rotate(query, cosine, sine), _rotate(key, cosine, sine)
        cache[0].transpose(1, 2)[row_index, places] = key.to(cache.dtype)
        cache[1].transpose(1, 2)[row_index, places] = value.to(cache.dtype)
        keys, values = cache[0, :rows, :, :width], cache[1, :rows, :, :width]
        if steps == 1:
            out = self._one_step(query, keys, values, mask)
        else:
            out = functional.scaled_dot_product_attention(
                query.transpose(1, 2).to(cache.dtype),
                keys,
                values,
                attn_mask=mask.to(cache.dtype),
                enable_gqa=self.heads != self.kv_heads,
            ).transpose(1, 2)
        out = attention.o_proj(out.reshape(rows, steps, -1))
        return out  # type: ignore[no-any-return]

    def _one_step(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attention of one new token a row, as two batched products over (row, kv head)."""
        rows, _, width, size = keys.shape
        group = self.heads // self.kv_heads
        flat = rows * self.kv_heads
        seen = mask.expand(rows, self.kv_heads, 1, width).reshape(flat, 1, width).to(keys.dtype)
        scores = torch.baddbmm(
            seen,
            query.reshape(flat, group, size).to(keys.dtype),
            keys.view(flat, width, size).transpose(1, 2),
            alpha=size**-0.5,
        )
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(keys.dtype)
        return torch.bmm(weights, values.view(flat, width, size))

    def _rotation(self, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Tables (places, head_size) of cosines and sines, made once and grown as needed."""
        if self._angles is None or self._angles[0].shape[0] < width or self._angles[0].dtype != like.dtype:
            length = max(1024, 1 << (width - 1).bit_length())
            places = torch.arange(length, device=like.device)[None]
            cosine, sine = self._body.rotary_emb(like, places)
            self._angles = (cosine[0], sine[0])
        return self._angles


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """The library's RMS norm as one operation; products in bf16 over fp32 weights are normed in fp32, as it does."""
    if hidden.dtype == module.weight.dtype:
        return functional.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)
    normed = functional.rms_norm(hidden.float(), hidden.shape[-1:], None, module.variance_epsilon)
    scaled: Tensor = module.weight * normed.to(hidden.dtype)
    return scaled


def _rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat((-second, first), dim=-1) * sine


def _require_supported(config: Any) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if config.model_type in SUPPORTED and kind in _ROPE and not sliding and config.hidden_act in ("silu", "swish"):
        return
    raise MuarlError(
        f"the in-process engine does not know {config.model_type} models"
        + (f" with {kind} rotary embedding" if kind not in _ROPE else "")
        + (" with sliding attention" if sliding else ""),
        why=f"it runs {', '.join(SUPPORTED)}",
        next_step="serve the model with vLLM and name it with --model and --base-url",
        code=ExitCode.UNAVAILABLE,
    )
