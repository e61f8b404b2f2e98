"""Ground of all tests: no network models, one thread a process, no key or setting from outside, its own HOME."""

from __future__ import annotations

import os

# Before anything imports torch or transformers: they read these once, at import.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

# The same examples in every run, and no deadline: a slow machine is not a wrong answer.
hypothesis_settings.register_profile("muarl", derandomize=True, deadline=None, database=None)
hypothesis_settings.load_profile("muarl")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test sees no key, address or setting of the person who runs it, and writes nothing into their HOME."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "MUARL_")) or name in {"NO_COLOR", "FORCE_COLOR", "HF_TOKEN"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(_home(tmp_path_factory)))
    yield


def _home(factory: pytest.TempPathFactory) -> Path:
    home = factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    return home
