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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from muarl_cli.engines.vllm_terms import CPU_OPTIONS, ENVIRONMENT, OPTIONS, room_for
from muarl_cli.errors import ExitCode, MuarlError

SERVED_NAME = "policy"
_SWITCHES = {
    "VLLM_SERVER_DEV_MODE": "1",  # /collective_rpc, /pause, /resume, /reset_prefix_cache
}
_OF_ADAPTERS = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",  # /v1/load_lora_adapter; a server that takes none would have it too
}
_PLATFORM = "from vllm.platforms import current_platform as here; print('cpu' if here.is_cpu() else 'other')"


@dataclass(frozen=True)
class Command:
    """A program with its environment."""

    words: tuple[str, ...]
    environment: Mapping[str, str]

    def shell(self) -> str:
        """As one would type it."""
        before = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"{before} {shlex.join(self.words)}"

    def fitted(self) -> Command:
        """The command for the vLLM that its interpreter has. Raises `MuarlError` where it has none."""
        python = self.words[0]
        found = subprocess.run([python, "-c", _PLATFORM], capture_output=True, text=True, check=False)
        if found.returncode:
            raise MuarlError(
                "vLLM cannot be imported",
                where=python,
                why=(found.stderr.strip().splitlines() or ["no reason given"])[-1],
                next_step="pip install 'muarl-cli[vllm]', or name an interpreter that has it: --python",
                code=ExitCode.MISSING_INPUT,
            )
        words = list(self.words)
        for name, on in (CPU_OPTIONS if found.stdout.split()[-1:] == ["cpu"] else {}).items():
            yes, no = f"--{name.replace('_', '-')}", f"--no-{name.replace('_', '-')}"
            if yes not in words and no not in words:
                words.append(yes if on else no)
        return replace(self, words=tuple(words))

    def run(self) -> NoReturn:
        """Become this program: whoever ends this process ends it."""
        os.execvpe(self.words[0], self.words, {**os.environ, **self.environment})


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
        *(word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", str(value))),
        *(("--enable-lora", "--max-lora-rank", str(room_for(max_lora_rank))) if max_lora_rank else ()),
        *more,
    ]
    switches = _SWITCHES | (_OF_ADAPTERS if max_lora_rank else {})
    return Command(tuple(words), {**switches, **ENVIRONMENT, "PYTHONPATH": path})
