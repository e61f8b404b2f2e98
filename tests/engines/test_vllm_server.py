"""The engine over vLLM's HTTP routes: the contract, weights on their way, and servers that lie.

Against a small server with those routes (`fakes/vllm_like_server.py`); `tests/engines/test_vllm_real.py` runs the same
contract on a real vLLM.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engines import contract
from engines.small_models import adapted, make_model
from fakes.vllm_like_server import GREEDY, ONCE, ROUTES, VllmLikeServer, connect

from muarl_cli.engines.address import resolve_address
from muarl_cli.engines.canary import canary_of
from muarl_cli.engines.hf import HFEngine
from muarl_cli.engines.protocol import Engine, Sampling
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.engines.vllm_server import open_servers
from muarl_cli.engines.wire import RetryPolicy, Wire
from muarl_cli.errors import MuarlError


def test_the_in_process_engine_keeps_the_contract() -> None:
    model = make_model()
    engine: Engine = HFEngine(model, "fp32")
    contract.run(lambda: contract.whole_contract(engine, model, 2e-5))


def test_an_engine_over_http_keeps_the_contract() -> None:
    model = make_model()
    with VllmLikeServer(model) as server:

        async def everything() -> None:
            engine = await connect(server)
            await contract.whole_contract(engine, model, 2e-5)
            await engine.close_connections()
            engine.close()

        asyncio.run(everything())
    assert server.completions > 20


@pytest.mark.parametrize("tied", [True, False])
def test_new_weights_are_what_is_served_from_then_on(tied: bool) -> None:
    old, new = make_model(0, tied), make_model(1, tied)
    with VllmLikeServer(old) as server:

        async def everything() -> None:
            engine = await connect(server)
            assert engine.weight_version == "0"
            served = make_model(0, tied)  # the server loads into its own
            await contract.takes_new_weights(engine, served, new, "7", False, 2e-5)
            await engine.close_connections()

        asyncio.run(everything())
    order = [call for call in server.calls if call in ("/pause", "/collective_rpc", "/reset_prefix_cache", "/resume")]
    assert order == ["/pause", "/collective_rpc", "/reset_prefix_cache", "/resume"]


def test_a_server_that_keeps_its_old_output_layer_is_caught() -> None:
    """HTTP 200, new embeddings, old head: what vLLM on a CPU does with tied weights."""
    old, new = make_model(0), make_model(1)
    with VllmLikeServer(old, stale_head=True) as server:

        async def everything() -> None:
            engine = await connect(server)
            with pytest.raises(MuarlError, match="does not compute with the policy's weights"):
                await engine.share(lambda folder: new.save_pretrained(folder), "1", canary_of(new, "fp32"), False)
            assert engine.weight_version == "0"
            await engine.close_connections()

        asyncio.run(everything())


def test_an_update_that_is_refused_is_an_error_and_the_server_goes_on_as_it_was() -> None:
    with VllmLikeServer(make_model(0)) as server:

        async def everything() -> None:
            engine = await connect(server)
            server.refuse = True
            with pytest.raises(MuarlError, match="refused a control call"):
                await engine.share(lambda folder: None, "1", canary_of(make_model(0), "fp32"), False)
            server.refuse = False
            assert engine.weight_version == "0"
            await engine.check(engine._servers[0], canary_of(make_model(0), "fp32"))
            await engine.close_connections()

        asyncio.run(everything())


def test_adapters_are_served_one_after_another_each_under_a_name_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = make_model(0)
    with VllmLikeServer(make_model(0)) as server:

        async def everything() -> None:
            engine = await connect(server)
            before = base
            for number in (1, 2):
                after = adapted(make_model(0), number)
                await contract.takes_new_weights(engine, before, after, str(number), True, 2e-5)
                assert [str(number) in name for name in server.adapters] == [True]
                assert len(list(engine._exchange.folder.iterdir())) == 1, "what is served must stay readable, only that"
                before = after
            assert "/collective_rpc" not in server.calls
            await contract.takes_new_weights(engine, before, base, "3", False, 2e-5)
            assert not list(engine._exchange.folder.iterdir())
            await engine.close_connections()
            engine.close()
            assert not engine._exchange.folder.exists()

        asyncio.run(everything())


def test_conversations_go_on_under_an_update_and_every_turn_names_the_weights_that_drew_it() -> None:
    """Turns never stop coming while weights are replaced five times: none fails, none is drawn by weights that are just
    being written, and each is what the weights that it names (or, begun before, their successors) would draw."""
    models = [make_model(seed) for seed in range(6)]
    drawn: list[tuple[tuple[int, ...], int, Any]] = []
    with VllmLikeServer(make_model(0)) as server:

        async def everything() -> None:
            engine = await connect(server)
            engine.require_updates_in_flight()
            over = False

            async def talk(number: int) -> None:
                turn = 0
                while not over:
                    prompt = contract.prompt(number, 10 + turn % 20)
                    drawn.append((prompt, turn, await engine.generate(prompt, GREEDY, f"talk{number}")))
                    turn += 1

            async def drawn_with(version: int) -> None:
                async with asyncio.timeout(60):
                    while not any(found.weight_version == str(version) for _, _, found in drawn):
                        await asyncio.sleep(0.01)

            talks = [asyncio.create_task(talk(number)) for number in range(4)]
            for version in range(1, 6):
                await drawn_with(version - 1)
                model = models[version]
                await engine.share(model.save_pretrained, str(version), canary_of(model, "fp32"), adapter=False)
            await drawn_with(5)
            over = True
            await asyncio.gather(*talks)
            await engine.close_connections()

        asyncio.run(everything())
    assert server.loading == [0] * 5 and server.resets == ["reset_running_requests=true"] * 5
    assert {found.weight_version for _, _, found in drawn} == {str(version) for version in range(6)}
    for prompt, _, found in drawn:
        at = int(found.weight_version)
        assert any(contract.is_likeliest(models[v], prompt, found) for v in range(at, min(at + 2, 6))), (at, prompt)


@pytest.mark.parametrize("adapters", [True, False])
def test_where_adapters_are_taken_turns_end_before_it_is_asked_what_it_computes(adapters: bool) -> None:
    """vLLM dies of a prompt's log-probabilities beside other turns then; without adapters nobody waits for anybody."""
    routes = tuple(route for route in ROUTES if adapters or "lora" not in route)
    with VllmLikeServer(make_model(0), routes=routes) as server:
        server.after = {7: frozenset({"1"})}

        async def everything() -> None:
            engine = await connect(server)
            long = Sampling(1.0, 1.0, 400, (), 7)
            turn = asyncio.create_task(engine.generate(contract.prompt(1, 8), long, "a"))
            async with asyncio.timeout(60):
                while not server.completions:
                    await asyncio.sleep(0.001)
                await engine.share(make_model(1).save_pretrained, "1", canary_of(make_model(1), "fp32"), adapter=False)
                assert len((await turn).ids) == 400
            await engine.close_connections()

        asyncio.run(everything())
    assert server.beside == [0 if adapters else 1]


def test_a_server_that_is_not_there_leaves_no_connection_open() -> None:
    wire = Wire(resolve_address("http://127.0.0.1:9/v1"), retry=ONCE)
    with pytest.raises(MuarlError, match="does not answer"):
        asyncio.run(open_servers([wire], "0"))
    assert wire._session is None


def test_a_server_that_is_paused_for_longer_than_a_request_may_take_is_not_given_up() -> None:
    impatient = RetryPolicy(attempts=1, request_seconds=1.0)
    with VllmLikeServer(make_model(0)) as server:

        async def everything() -> None:
            engine = await open_servers([Wire(resolve_address(server.url), retry=impatient)], "0")
            only = engine._servers[0]
            await only.admin._call("POST", "/pause")
            at_first = server.completions
            early = asyncio.create_task(engine.generate(contract.prompt(1, 8), GREEDY, "a"))
            async with asyncio.timeout(30):
                while server.completions == at_first:  # it was asked before anybody knew of the update
                    await asyncio.sleep(0.001)
            only.steady.clear()
            await asyncio.sleep(1.5)
            assert not early.done() and only.alive
            await only.admin._call("POST", "/resume")
            only.steady.set()
            assert len((await early).ids) == 2 and engine.moved == 0
            await engine.close_connections()

        asyncio.run(everything())


@pytest.mark.parametrize("missing", ["/pause", "/resume", "/reset_prefix_cache"])
def test_a_server_without_pause_or_reset_is_refused_for_updates_in_flight(missing: str) -> None:
    with VllmLikeServer(make_model(), routes=tuple(route for route in ROUTES if route != missing)) as server:

        async def everything() -> None:
            engine = await connect(server)
            with pytest.raises(MuarlError, match="while conversations go on") as caught:
                engine.require_updates_in_flight()
            assert "muarl serve" in caught.value.next_step
            await engine.close_connections()

        asyncio.run(everything())


async def test_a_conversation_ends_where_the_server_holds_no_more_however_long_the_model_could_go_on() -> None:
    """A server may be started with less room than its model has (--max-context)."""
    with VllmLikeServer(make_model(0), context=40) as server:
        engine = await connect(server)
        assert engine.context == 40
        with pytest.raises(ContextOverflow):
            await engine.generate(contract.prompt(1, 39), GREEDY, "a")
        await engine.close_connections()


async def test_an_address_that_lacks_its_v1_is_told_so() -> None:
    with VllmLikeServer(make_model(0)) as server:
        wire = Wire(resolve_address(server.url.removesuffix("/v1")), retry=ONCE)
        with pytest.raises(MuarlError, match="serves no model") as caught:
            await open_servers([wire], "0")
        assert "/v1" in caught.value.next_step


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("/v1/completions", "takes token ids"),
        ("/collective_rpc", "replace weights"),
        ("/v1/load_lora_adapter", "load adapters"),
    ],
)
def test_what_a_server_cannot_do_is_said_with_the_command_that_starts_one_that_can(missing: str, message: str) -> None:
    adapter = message == "load adapters"
    routes = tuple(route for route in ROUTES if route != missing)
    with VllmLikeServer(make_model(), routes=routes) as server:

        async def everything() -> None:
            with pytest.raises(MuarlError, match=message) as caught:
                engine = await connect(server)
                try:
                    await engine.share(lambda folder: None, "1", canary_of(make_model(), "fp32"), adapter)
                finally:
                    await engine.close_connections()
            assert "muarl serve" in caught.value.next_step
            assert ("--max-lora-rank" in caught.value.next_step) is adapter

        asyncio.run(everything())
