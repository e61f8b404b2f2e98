"""Tool Decathlon, which the paper's line of work reports and which cannot be run here: listed with the reason."""

from __future__ import annotations

from collections.abc import Mapping

from muarl_cli.benchmarks.provider import GoldCount, Provider, Status
from muarl_cli.errors import ExitCode, MuarlError

WHY = "its tasks need accounts at live services (mail, calendars, shops, cloud drives) and its own containers"


def status() -> Status:
    return Status((), ("everything",), (f"not available: {WHY}",))


def gold_check(domain: str) -> Mapping[str, GoldCount]:
    raise MuarlError("Tool Decathlon cannot be run here", why=WHY, code=ExitCode.MISSING_INPUT)


PROVIDER = Provider("tool-decathlon", (), (), status, gold_check, note=WHY)
