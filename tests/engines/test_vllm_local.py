"""vLLM in this process where there is none, and weights on their way; `test_vllm_real.py` has the contract on vLLM."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from muarl_cli.engines.exchange import Exchange
from muarl_cli.engines.vllm_local import VllmLocal
from muarl_cli.errors import ExitCode, MuarlError


def test_without_vllm_it_is_said_what_to_install_and_how_to_do_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MuarlError, match="vLLM cannot be imported") as caught:
        VllmLocal(tmp_path, "0", dtype="fp32", max_context=64)
    assert caught.value.code is ExitCode.MISSING_INPUT
    assert "muarl-cli[vllm]" in caught.value.next_step and "muarl serve" in caught.value.next_step


def test_an_adapter_stays_readable_until_another_is_served_and_a_failed_delivery_changes_nothing(
    tmp_path: Path,
) -> None:
    exchange = Exchange(tmp_path / "weights")
    seen: list[Path] = []

    async def deliver(version: str, adapter: bool, fails: bool = False) -> None:
        async with exchange.delivery(lambda folder: (folder / "w").touch(), version, adapter) as folder:
            assert (folder / "w").exists() and folder.is_absolute()
            seen.append(folder)
            if fails:
                raise MuarlError("the server refused it")

    def left() -> list[Path]:
        return list(exchange.folder.iterdir())

    asyncio.run(deliver("1", True))
    assert left() == [seen[0]]
    with pytest.raises(MuarlError):
        asyncio.run(deliver("2", True, fails=True))
    assert left() == [seen[0]]
    asyncio.run(deliver("2", True))
    assert left() == [seen[2]]
    asyncio.run(deliver("2", True))
    assert left() == [seen[3]] and seen[3] != seen[2], "the same version again is another delivery"
    asyncio.run(deliver("3", False))
    assert left() == []
