"""The engine contract on vLLM in this process; run it with an interpreter that has vLLM (`make test-vllm`).

Prints one JSON document: what was checked, and why it did not hold where it did not ("" where it did).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

from engines import contract  # noqa: E402
from engines.small_models import CLOSE, adapted, make_model, save  # noqa: E402

from muarl_cli.conversation.protocols import InfraFault  # noqa: E402
from muarl_cli.engines.canary import canary_of  # noqa: E402
from muarl_cli.engines.protocol import Sampling  # noqa: E402
from muarl_cli.engines.vllm_local import VllmLocal  # noqa: E402
from muarl_cli.errors import MuarlError  # noqa: E402

EAGER = {"enforce_eager": True}
"""compiling takes longer than these models run"""


async def keeps_its_old_output_layer_and_is_caught(engine: Any, folder: Path, new: Any) -> None:
    """vLLM's own reload, without muarl's worker: no error, and the old output layer of a tied model."""
    new.save_pretrained(folder)

    async def reload() -> None:
        await engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        await engine._llm.reset_prefix_cache()

    await engine._there(reload())
    try:
        await engine.check(canary_of(new, "fp32"))
    except MuarlError as error:
        assert "does not compute with the trainer's weights" in str(error)
    else:
        raise AssertionError("a stale output layer was taken for the new one")
    await engine.share(new.save_pretrained, "repaired", canary_of(new, "fp32"), False)


async def swaps_adapters(engine: Any, base: Any) -> None:
    before = base
    for number in (1, 2, 3):
        after = adapted(make_model(1, True), number)
        await contract.takes_new_weights(engine, before, after, f"adapter-{number}", True, CLOSE)
        before = after
    await contract.takes_new_weights(engine, before, base, "without", False, CLOSE)


async def takes_what_nobody_waits_for_out_of_its_batch(engine: Any) -> None:
    asked = asyncio.create_task(engine.generate(contract.prompt(1, 20), Sampling(1.0, 1.0, 480, (), 1), "gone"))
    await asyncio.sleep(0.05)
    assert engine._llm.get_num_unfinished_requests() == 1, "it was over before it could be cancelled"
    asked.cancel()
    try:
        await asked
    except asyncio.CancelledError:
        pass
    for _ in range(100):
        if not engine._llm.get_num_unfinished_requests():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the turn is still being drawn")


async def says_that_it_died(engine: Any) -> None:
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True)
    for line in children.stdout.splitlines():
        number, words = line.split(maxsplit=1)
        if "spawn_main" in words or "EngineCore" in words:
            os.kill(int(number), signal.SIGKILL)
    for _ in range(3):
        try:
            await engine.generate(contract.prompt(1, 20), Sampling(1.0, 1.0, 8, (), 1), "dead")
        except InfraFault:
            return
        await asyncio.sleep(0.5)
    raise AssertionError("it draws on without its child process")


def refuses_an_option_that_vllm_does_not_know(folder: Path) -> None:
    try:
        VllmLocal(folder, "0", dtype="fp32", max_context=512, options={"no_such_option": 1})
    except MuarlError as error:
        assert "vLLM does not start" in str(error) and "no_such_option" in str(error)
    else:
        raise AssertionError("it started")


def main() -> None:
    verdict: dict[str, str] = {}
    seconds: dict[str, float] = {}

    def check(name: str, what: Callable[[], Awaitable[None]]) -> None:
        began = time.monotonic()
        try:
            asyncio.run(what())  # type: ignore[arg-type]  # each on an event loop of its own
            verdict[name] = ""
        except Exception:
            verdict[name] = traceback.format_exc()
        seconds[name] = round(time.monotonic() - began, 1)

    with tempfile.TemporaryDirectory() as place:
        for tied in (True, False):
            kind = "tied" if tied else "untied"
            old, new = make_model(0, tied), make_model(1, tied)
            folder = save(old, Path(place) / kind)
            began = time.monotonic()
            engine = VllmLocal(folder, "0", dtype="fp32", max_context=512, adapter_rank=8 if tied else 0, options=EAGER)
            seconds[f"{kind}: start"] = round(time.monotonic() - began, 1)
            check(f"{kind}: contract", lambda e=engine, m=old: contract.whole_contract(e, m, CLOSE))
            check(
                f"{kind}: full sync",
                lambda e=engine, m=old, n=new: contract.takes_new_weights(e, m, n, "1", False, CLOSE),
            )
            if tied:
                stale = Path(place) / "stale"
                check(
                    "tied: stale output layer is caught and repaired",
                    lambda e=engine, m=old: keeps_its_old_output_layer_and_is_caught(e, stale, m),
                )
                again = make_model(1, True)
                check(
                    "tied: back to the new weights",
                    lambda e=engine, m=old, n=again: contract.takes_new_weights(e, m, n, "2", False, CLOSE),
                )
                check("adapters", lambda e=engine, m=again: swaps_adapters(e, m))
                check("a cancelled turn is aborted", lambda e=engine: takes_what_nobody_waits_for_out_of_its_batch(e))
            else:
                check("a killed child is an infrastructure fault", lambda e=engine: says_that_it_died(e))
            engine.close()

        async def refusal() -> None:
            refuses_an_option_that_vllm_does_not_know(Path(place) / "tied")

        check("an unknown option is refused", refusal)
    print(json.dumps({"checks": verdict, "seconds": seconds, "failed": sum(bool(why) for why in verdict.values())}))


if __name__ == "__main__":
    main()
