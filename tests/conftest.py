"""Ground of all tests: no network models, one thread a process, no key or setting from outside, its own HOME."""

from __future__ import annotations

import os

# Before anything imports torch or transformers: they read these once, at import.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Iterator

import pytest
from hypothesis import settings as hypothesis_settings

# The same examples in every run, and no deadline: a slow machine is not a wrong answer.
hypothesis_settings.register_profile("muarl", derandomize=True, deadline=None, database=None)
hypothesis_settings.load_profile("muarl")


@pytest.fixture(autouse=True, scope="session")
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test, and what several tests share, sees no key, address or setting of the person who runs it, and nothing of
    their HOME."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        _clean(patch)
        patch.setenv("HOME", str(home))
        yield


@pytest.fixture(autouse=True)
def _nothing_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process may leave a checkout's name in the environment."""
    _clean(monkeypatch)


def _clean(patch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "MUARL_")) or name in {"NO_COLOR", "FORCE_COLOR", "HF_TOKEN"}:
            patch.delenv(name)
