"""Servers that die and come back: where their conversations go on, what they missed, what they show first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engines import contract
from engines.small_models import adapted, make_model
from fakes.vllm_like_server import GREEDY, VllmLikeServer, connect

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.canary import canary_of
from muarl_cli.engines.protocol import Sampling
from muarl_cli.engines.vllm_admin import Unanswered
from muarl_cli.engines.vllm_server import VllmServer
from muarl_cli.errors import MuarlError


def test_conversations_stay_with_their_server_and_move_on_when_it_dies() -> None:
    model = make_model()
    with VllmLikeServer(model) as first, VllmLikeServer(model) as second:

        async def everything() -> None:
            engine = await connect(first, second)
            ask = Sampling(1.0, 1.0, 5, (3,), 1)
            for turn in range(3):
                await asyncio.gather(
                    *(engine.generate(contract.prompt(n, 10 + turn), ask, f"talk{n}") for n in range(6))
                )
            assert (first.completions, second.completions) == (9, 9)
            expected = await engine.generate(contract.prompt(0, 30), ask, "talk0")
            first.kill()
            drawn = [await engine.generate(contract.prompt(n, 30), ask, f"talk{n}") for n in range(6)]
            assert drawn[0].ids == expected.ids and engine.moved == 3
            second.kill()
            with pytest.raises(InfraFault):
                await engine.generate(contract.prompt(0, 30), ask, "talk0")
            await engine.close_connections()

        asyncio.run(everything())


@pytest.mark.parametrize("adapter", [False, True])
def test_a_server_that_died_misses_updates_and_is_back_with_the_next_one_after_it_was_started_again(
    adapter: bool,
) -> None:
    models = [make_model(0), *((adapted(make_model(0), n) if adapter else make_model(n)) for n in (1, 2, 3))]

    async def update(engine: VllmServer, version: int) -> None:
        model = models[version]
        await engine.share(model.save_pretrained, str(version), canary_of(model, "fp32"), adapter)

    async def agrees(engine: VllmServer, version: int) -> None:
        for number in range(4):
            prompt = contract.prompt(number, 12)
            found = await engine.generate(prompt, GREEDY, f"{version}-{number}")
            assert found.weight_version == str(version) and contract.is_likeliest(models[version], prompt, found)

    with VllmLikeServer(make_model(0)) as first, VllmLikeServer(make_model(0)) as second:

        async def everything() -> None:
            engine = await connect(first, second)
            await update(engine, 1)
            second.kill()  # between two turns: nobody has asked it since
            await update(engine, 2)
            await agrees(engine, 2)
            assert engine.unreachable == (f"http://127.0.0.1:{second.port}",)
            with VllmLikeServer(make_model(0), port=second.port) as again:
                await agrees(engine, 2)
                assert not again.completions, "it has the weights that it was started with"
                await update(engine, 3)
                await agrees(engine, 3)
                assert again.completions > 1 and not engine.unreachable
                first.kill()
                again.kill()
                with pytest.raises(MuarlError, match="no server took the new weights") as caught:
                    await update(engine, 1)
                assert "resumes" in caught.value.next_step
            await engine.close_connections()

        asyncio.run(everything())


def test_no_turn_begins_before_its_server_was_checked_and_none_counts_that_a_lost_server_drew() -> None:
    """Two servers, one of which cannot be told of the new weights. One turn was under way there, another one was about
    to begin: the other server draws both, with the new weights."""
    old, new = make_model(0), make_model(1)
    with VllmLikeServer(make_model(0)) as first, VllmLikeServer(make_model(0)) as second:

        async def everything() -> None:
            engine = await connect(first, second)
            kept, lost = engine._servers
            tell, told, told_all = kept.admin.load_weights, asyncio.Event(), asyncio.Event()

            async def late(*what: Any) -> None:
                await told.wait()
                await tell(*what)

            async def in_vain(*what: Any) -> None:
                told_all.set()
                await told.wait()
                raise Unanswered("the line is cut")

            kept.admin.load_weights, lost.admin.load_weights = late, in_vain  # type: ignore[method-assign]
            for number in range(2):  # conversations a and c are the first server's, b and d the second's
                for name in ("a", "b", "c", "d"):
                    await engine.generate(contract.prompt(number, 8), GREEDY, name)
            await lost.admin._call("POST", "/pause")
            asked = contract.prompt(7, 12)
            at_first = second.completions
            under_way = asyncio.create_task(engine.generate(asked, GREEDY, "b"))
            async with asyncio.timeout(30):
                while second.completions == at_first:
                    await asyncio.sleep(0.001)
            canary = canary_of(new, "fp32")
            update = asyncio.create_task(engine.share(new.save_pretrained, "1", canary, False))
            await told_all.wait()
            begun = first.completions, second.completions
            about_to = [asyncio.create_task(engine.generate(asked, GREEDY, name)) for name in ("a", "d")]
            await asyncio.sleep(0.1)  # long enough for requests that should not leave to arrive
            assert (first.completions, second.completions) == begun, "a turn began while weights were on their way"
            told.set()
            await update
            await lost.admin._call("POST", "/resume")
            for found in await asyncio.gather(under_way, *about_to):
                assert contract.is_likeliest(new, asked, found) and not contract.is_likeliest(old, asked, found)
            assert second.completions == begun[1] and engine.moved == 2
            await engine.close_connections()

        asyncio.run(asyncio.wait_for(everything(), 60))


def test_the_only_server_is_asked_again_when_it_is_back_but_not_with_other_weights() -> None:
    ask = (contract.prompt(1, 12), GREEDY)
    new = make_model(1)
    with VllmLikeServer(make_model(0)) as server:

        async def everything() -> None:
            engine = await connect(server)
            server.kill()
            with pytest.raises(InfraFault):
                await engine.generate(*ask, "a")
            with VllmLikeServer(make_model(0), port=server.port) as again:
                assert (await engine.generate(*ask, "b")).weight_version == "0"
                await engine.share(new.save_pretrained, "1", canary_of(new, "fp32"), False)
                assert contract.is_likeliest(new, ask[0], await engine.generate(*ask, "b"))
                again.kill()
                with pytest.raises(InfraFault):
                    await engine.generate(*ask, "b")
            with (
                VllmLikeServer(make_model(0), port=server.port),
                pytest.raises(MuarlError, match="does not compute with the policy's weights"),
            ):
                await engine.generate(*ask, "b")
            await engine.close_connections()

        asyncio.run(everything())


def test_conversations_that_find_their_only_server_back_ask_it_once_and_before_any_goes_on() -> None:
    with VllmLikeServer(make_model(0)) as server:

        async def everything() -> None:
            engine = await connect(server)
            await engine.distances(canary_of(make_model(0), "fp32"))
            server.kill()
            with pytest.raises(InfraFault):
                await engine.generate(contract.prompt(0, 8), GREEDY, "0")
            with VllmLikeServer(make_model(0), port=server.port) as again:
                await asyncio.gather(*(engine.generate(contract.prompt(n, 8), GREEDY, str(n)) for n in range(8)))
                assert again.beside == [0]
            await engine.close_connections()

        asyncio.run(everything())


def test_a_server_that_was_asked_and_then_died_is_taken_up_again_with_what_it_computed_only() -> None:
    """Nothing is trained here: what it held in the beginning is what the episodes are labelled with."""
    ask, folder = (contract.prompt(1, 12), GREEDY), canary_of(make_model(0), "fp32")
    with VllmLikeServer(make_model(0)) as server:

        async def everything() -> None:
            engine = await connect(server)
            assert [away < 1e-4 for away in (await engine.distances(folder)).values()] == [True]
            server.kill()
            for seed, error in ((0, ""), (1, "does not compute with the policy's weights")):
                with pytest.raises(InfraFault):
                    await engine.generate(*ask, "a")
                with VllmLikeServer(make_model(seed), port=server.port):
                    if error:
                        with pytest.raises(MuarlError, match=error):
                            await engine.generate(*ask, "a")
                    else:
                        assert (await engine.generate(*ask, "a")).ids
            await engine.close_connections()

        asyncio.run(everything())
