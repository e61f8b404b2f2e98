"""The command that starts a vLLM server as muarl needs one: token ids with the log-probabilities of the distribution
that was really sampled, new weights while it runs, nothing taken from a model folder's generation defaults.

Invariant: what `engines/vllm_server.py` relies on is switched on here, in one place, with the reason beside it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muarl_cli.errors import ExitCode, MuarlError

SERVED_NAME = "policy"
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # /collective_rpc, /pause, /resume, /reset_prefix_cache
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",  # /v1/load_lora_adapter
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Command:
    """A program with its environment."""

    words: tuple[str, ...]
    environment: Mapping[str, str]

    def shell(self) -> str:
        """As one would type it."""
        before = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"{before} {shlex.join(self.words)}"

    def run(self) -> int:
        """Run it in this terminal until it ends; its exit code. Raises `MuarlError` where there is no vLLM."""
        python = self.words[0]
        found = subprocess.run([python, "-c", "import vllm"], capture_output=True, text=True, check=False)
        if found.returncode:
            raise MuarlError(
                "vLLM cannot be imported",
                where=python,
                why=(found.stderr.strip().splitlines() or ["no reason given"])[-1],
                next_step="pip install 'muarl-cli[vllm]', or name an interpreter that has it: --python",
                code=ExitCode.MISSING_INPUT,
            )
        return subprocess.run(self.words, env={**os.environ, **self.environment}, check=False).returncode


def serve_command(
    model: str, host: str, port: int, max_context: int, max_lora_rank: int, more: Sequence[str], python: str = ""
) -> Command:
    """The command for `model`, a folder or a name that vLLM resolves; `more` are vLLM flags of the caller's own."""
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH", "")) if part)
    words = [
        python or sys.executable,
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model, "--served-model-name", SERVED_NAME, "--host", host, "--port", str(port)),
        *("--max-model-len", str(max_context)),
        *("--generation-config", "vllm"),  # a folder's own sampling defaults would change the distribution unseen
        *("--logprobs-mode", "processed_logprobs"),  # after temperature and top-p: what was really drawn from
        *("--max-logprobs", "1"),
        *("--worker-extension-cls", "muarl_cli.engines.vllm_worker.Worker"),
        *(("--enable-lora", "--max-lora-rank", str(max_lora_rank)) if max_lora_rank else ()),
        *more,
    ]
    return Command(tuple(words), {**ENVIRONMENT, "PYTHONPATH": path})
