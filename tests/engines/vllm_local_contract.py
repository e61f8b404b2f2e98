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
from collections.abc import Coroutine
from contextlib import suppress
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
        assert "does not compute with the policy's weights" in str(error)
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
    while not engine._llm.get_num_unfinished_requests():
        assert not asked.done(), "it was over before it could be cancelled"
        await asyncio.sleep(0.001)
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    for _ in range(600):
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
    for _ in range(60):
        try:
            await engine.generate(contract.prompt(1, 20), Sampling(1.0, 1.0, 8, (), 1), "dead")
        except InfraFault:
            return
        await asyncio.sleep(0.5)
    raise AssertionError("it draws on without its child process")


async def refuses_an_option_that_vllm_does_not_know(folder: Path) -> None:
    try:
        VllmLocal(folder, "0", dtype="fp32", max_context=512, options={"no_such_option": 1})
    except MuarlError as error:
        assert "vLLM does not start" in str(error) and "no_such_option" in str(error)
    else:
        raise AssertionError("it started")


class Verdict:
    """What was checked, why it did not hold ("" where it did), and how long it took."""

    def __init__(self) -> None:
        self.checks: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def took(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self._began, 1)
        self._began = now

    def check(self, name: str, what: Coroutine[Any, Any, None]) -> None:
        """Each on an event loop of its own."""
        try:
            asyncio.run(what)
            self.checks[name] = ""
        except Exception:
            self.checks[name] = traceback.format_exc()
        self.took(name)


def tied_model(place: Path, verdict: Verdict) -> None:
    old, new, again = make_model(0), make_model(1), make_model(1)
    folder = save(old, place / "tied")
    engine = VllmLocal(folder, "0", dtype="fp32", max_context=2048, adapter_rank=8, options=EAGER)
    verdict.took("tied_start")
    verdict.check("tied: contract", contract.whole_contract(engine, old, CLOSE))
    verdict.check("tied: long prompts at once", contract.reads_many_long_prompts_at_once(engine, old, CLOSE))
    verdict.check("tied: full weights", contract.takes_new_weights(engine, old, new, "1", False, CLOSE))
    stale = keeps_its_old_output_layer_and_is_caught(engine, place / "stale", old)
    verdict.check("tied: a stale output layer is caught and repaired", stale)
    verdict.check("tied: full weights again", contract.takes_new_weights(engine, old, again, "2", False, CLOSE))
    verdict.check("adapters", swaps_adapters(engine, again))
    verdict.check("a cancelled turn is aborted", takes_what_nobody_waits_for_out_of_its_batch(engine))
    engine.close()


def untied_model(place: Path, verdict: Verdict) -> None:
    old, new = make_model(0, False), make_model(1, False)
    folder = save(old, place / "untied")
    base = adapted(make_model(0, False), 5)
    base.save_pretrained(place / "adapter")
    engine = VllmLocal(
        folder,
        "0",
        dtype="fp32",
        max_context=4096,
        adapter_rank=8,
        adapter=place / "adapter",
        options=EAGER | {"max_model_len": 512},
    )
    assert engine.context == 512, "conversations must end where the option says, not fail there"
    verdict.took("untied_start")
    verdict.check("untied: an adapter from the start", contract.draws_from_the_model_it_serves(engine, base, CLOSE))
    verdict.check("untied: full weights", contract.takes_new_weights(engine, base, old, "1", False, CLOSE))
    verdict.check("untied: contract", contract.whole_contract(engine, old, CLOSE))
    verdict.check("untied: full weights again", contract.takes_new_weights(engine, old, new, "2", False, CLOSE))
    verdict.check("a killed child is an infrastructure fault", says_that_it_died(engine))
    engine.close()


def main() -> None:
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as place:
        tied_model(Path(place), verdict)
        untied_model(Path(place), verdict)
        verdict.check("an unknown option is refused", refuses_an_option_that_vllm_does_not_know(Path(place) / "tied"))
    failed = sum(bool(why) for why in verdict.checks.values())
    passed = len(verdict.checks) - failed
    print(json.dumps({"checks": verdict.checks, "seconds": verdict.seconds, "passed": passed, "failed": failed}))


if __name__ == "__main__":
    main()
