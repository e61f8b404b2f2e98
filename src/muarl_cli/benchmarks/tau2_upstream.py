"""TAU2 from an upstream checkout in its own interpreter (Python 3.12): for leaderboard runs, and to check our port.

Its environments execute the calls and its `evaluate_simulation` is the judge. One environment an episode is built anew
(0.03 to 0.12 s), and the write set names the database as a whole: use the package where neither matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from muarl_cli.benchmarks.official_limits import tau2_limits
from muarl_cli.benchmarks.served import ServedScenario
from muarl_cli.benchmarks.tau2_results import results_file
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.limits import Limits
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.server import WorldServer

_CLASS = {"write": ToolClass.WRITE, "read": ToolClass.READ}


def upstream_scenario(domain: str, server: WorldServer) -> ServedScenario:
    """The scenario of a domain of the checkout; raises `MuarlError` for an unknown one."""
    known = server.ask("domains")
    if domain not in known:
        raise MuarlError(
            f"the checkout has no domain {domain!r}", next_step=f"one of: {', '.join(known)}", code=ExitCode.USAGE
        )
    return _scenario(domain, server)


@lru_cache(maxsize=8)
def _scenario(domain: str, server: WorldServer) -> ServedScenario:
    return UpstreamScenario("tau2", domain, server, class_of)


class UpstreamScenario(ServedScenario):
    """A domain of the checkout, with the result file of its own commands. They replay calls and compare answers."""

    typed_numbers = True

    def official_limits(self, limits: Limits) -> Limits:
        """See `Tau2Scenario.official_limits`."""
        return tau2_limits(limits)

    def official_files(self, episodes: Sequence[Episode], agent: str) -> dict[str, bytes]:
        """See `Tau2Scenario.official_files`; the task records are the checkout's."""
        ids = sorted({episode.task_id for episode in episodes})
        records = self.server.ask("records", domain=self.name, ids=ids)
        return {f"tau2/{self.name}/results.json": results_file(self, records, episodes, agent)}


def class_of(tool: Mapping[str, Any]) -> ToolClass:
    """What a tool may do to the state, as the checkout marks it."""
    return _CLASS.get(str(tool["class"]), ToolClass.GENERIC)
