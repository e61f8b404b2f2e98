"""What runs inside a vLLM worker: `--worker-extension-cls muarl_cli.engines.vllm_worker.Worker`.

One method, called through the server's /collective_rpc: load the weights of a Hugging Face folder into the running
model. On the CPU back-end the output layer keeps a packed copy of its own that a reload does not touch where it is tied
to the embeddings; it is packed again here. Invariant: returns the version it was given once the weights are in place;
anything else is an error that the server reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Worker:
    """Mixed into vLLM's own worker, which has `model_runner`."""

    model_runner: Any

    def muarl_load(self, folder: str, version: str) -> str:
        from safetensors.torch import load_file

        files = sorted(Path(folder).glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"no safetensors in {folder}")

        def tensors() -> Any:
            for file in files:
                yield from load_file(file).items()

        self.model_runner.reload_weights(weights_iterator=tensors())
        self._repack_output_layer()
        return version

    def _repack_output_layer(self) -> None:
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            return
        head = getattr(self.model_runner.model, "lm_head", None)
        head = getattr(head, "base_layer", head)  # an adapter wraps it
        method = getattr(head, "quant_method", None)
        if method is not None:
            method.process_weights_after_loading(head)
