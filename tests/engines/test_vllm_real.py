"""The engine contract on a real vLLM (0.32, CPU build), as a server and in a process of ours: `make test-vllm`.

Needs an interpreter that has vLLM, named by MUARL_VLLM_PYTHON (`make test-vllm` builds an environment and names it);
without one there is nothing to test.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import contract
from engines.small_models import CLOSE, adapted, make_model, save
from engines.vllm_process import PYTHON, Served, needs_vllm, served

from muarl_cli.engines.canary import canary_of
from muarl_cli.engines.protocol import Sampling
from muarl_cli.engines.vllm_server import VllmServer, open_servers
from muarl_cli.engines.wire import RetryPolicy, Wire, resolve_address
from muarl_cli.errors import MuarlError

pytestmark = [pytest.mark.slow, needs_vllm]


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of `make_model(0)`, which takes adapters; the last test that uses it kills it."""
    folder = save(make_model(0), tmp_path_factory.mktemp("tied"))
    with served(folder, "--max-context", "2048", "--max-lora-rank", "8") as server:
        yield server


async def connect(*urls: str) -> VllmServer:
    retry = RetryPolicy(attempts=2, request_seconds=60, base_seconds=0.1)
    return await open_servers([Wire(resolve_address(url), retry=retry) for url in urls], "0")


def talk(urls: tuple[str, ...], what: Callable[[VllmServer], Awaitable[None]]) -> None:
    """Do `what` with an engine over these servers."""

    async def everything() -> None:
        engine = await connect(*urls)
        await what(engine)
        await engine.close_connections()
        engine.close()

    asyncio.run(everything())


async def _contract_and_full_weights(engine: VllmServer, old: Any, new: Any) -> None:
    server = engine._servers[0]
    assert server.features.full_weights and server.features.pauses and server.features.resets_cache
    assert engine.context == 2048
    await engine.check(server, canary_of(old, "fp32"))
    await contract.whole_contract(engine, old, CLOSE)
    with pytest.raises(MuarlError, match="does not compute"):
        await engine.check(server, canary_of(new, "fp32"))
    await contract.takes_new_weights(engine, old, new, "1", False, CLOSE)
    await contract.reads_many_long_prompts_at_once(engine, new, CLOSE)


def test_a_real_server_keeps_the_contract_and_takes_new_weights(tied: Served, tmp_path: Path) -> None:
    """Also a tied output layer, which vLLM's CPU back-end does not renew by itself: muarl's worker packs it again, and
    without that the canary stops the run."""
    old, new = make_model(0), make_model(1)

    async def everything(engine: VllmServer) -> None:
        await _contract_and_full_weights(engine, old, new)
        await contract.goes_on_with_new_weights_in_the_middle_of_a_turn(engine, new, old, CLOSE)
        await _stale_head(engine, old, tmp_path)

    talk((tied.url,), everything)


async def _stale_head(engine: VllmServer, old: Any, tmp_path: Path) -> None:
    """vLLM's own reload, without muarl's worker: a 200, and the old output layer."""
    server = engine._servers[0]
    folder = tmp_path / "again"
    old.save_pretrained(folder)
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    await server.admin._call("POST", "/collective_rpc", body)
    await server.admin._call("POST", "/reset_prefix_cache")
    with pytest.raises(MuarlError, match="does not compute with the policy's weights"):
        await engine.check(server, canary_of(old, "fp32"))
    await engine.share(old.save_pretrained, "2", canary_of(old, "fp32"), False)


def test_a_real_server_swaps_adapters(tied: Served) -> None:
    """One after another, which the server must keep without its file, and then none again."""
    pytest.importorskip("peft")
    base = make_model(0)

    async def everything(engine: VllmServer) -> None:
        await engine.share(base.save_pretrained, "base", canary_of(base, "fp32"), False)
        before = base
        for number in (1, 2, 3):
            after = adapted(make_model(0), number)
            await contract.takes_new_weights(engine, before, after, f"adapter-{number}", True, CLOSE)
            before = after
        after = adapted(make_model(0), 4)
        await contract.ends_a_turn_with_the_adapter_that_it_began_with(engine, before, after, CLOSE)
        before = after
        assert len(await engine._servers[0].wire.models()) == 2, "adapters that no longer play are still served"
        await contract.takes_new_weights(engine, before, base, "without", False, CLOSE)

    talk((tied.url,), everything)


def test_a_real_server_of_an_untied_model_takes_over_from_one_that_is_killed(tied: Served, tmp_path: Path) -> None:
    """Both get the same weights: the tied model's, whose output layer the untied one holds as a copy."""
    old, new, both = make_model(0, False), make_model(1, False), make_model(2)
    with served(save(old, tmp_path / "model"), "--max-context", "2048") as untied:
        talk((untied.url,), lambda engine: _contract_and_full_weights(engine, old, new))
        copy = make_model(0, False)
        copy.load_state_dict(both.state_dict())

        async def dies(engine: VllmServer) -> None:
            await engine.share(copy.save_pretrained, "3", canary_of(both, "fp32"), False)
            ask = Sampling(1.0, 1.0, 6, contract.STOPS, 1)
            await asyncio.gather(*(engine.generate(contract.prompt(n, 12), ask, f"t{n}") for n in range(4)))
            os.killpg(tied.process.pid, signal.SIGKILL)
            for n in range(4):
                drawn = await engine.generate(contract.prompt(n, 24), ask, f"t{n}")
                found = contract.expected(both, contract.prompt(n, 24), drawn, 1.0)
                assert torch.allclose(torch.tensor(drawn.logprobs), found, atol=CLOSE)
            assert engine.moved == 2
            await engine.share(new.save_pretrained, "4", canary_of(new, "fp32"), False)
            drawn = await engine.generate(contract.prompt(1, 24), ask, "t1")
            found = contract.expected(new, contract.prompt(1, 24), drawn, 1.0)
            assert torch.allclose(torch.tensor(drawn.logprobs), found, atol=CLOSE) and len(engine.unreachable) == 1

        talk((tied.url, untied.url), dies)


def test_vllm_in_this_process_keeps_the_contract() -> None:
    """In an interpreter that has vLLM, with the tied and the untied model: contract, full weights, adapters, a stale
    output layer, a cancelled turn, a killed child."""
    program = Path(__file__).with_name("vllm_local_contract.py")
    done = subprocess.run([PYTHON, str(program)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    checks = json.loads(done.stdout)["checks"]
    assert len(checks) == 13
    broken = {name: why for name, why in checks.items() if why}
    assert not broken, "\n".join(f"{name}: {why}" for name, why in broken.items())
