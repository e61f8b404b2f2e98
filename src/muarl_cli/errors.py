"""One error type for everything a person can mend: what happened, where, why, and what to do next.

The exit code says which kind of failure it was, so that a shell script or a CI job can react without reading text.
A traceback is for bugs; a `MuarlError` never shows one unless `--debug` is given.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes (sysexits where one fits)."""

    OK = 0
    GATE_FAILED = 1
    PARTIAL = 2
    """the run finished, but with faults: an episode that was asked for is missing or invalid (the same command plays it
    again), or too many were where invalid ones are replaced by others (`synth-coldstart`, `rl-train`)"""
    USAGE = 64
    BAD_DATA = 65
    MISSING_INPUT = 66
    UNAVAILABLE = 69
    """an endpoint does not answer"""
    INTERNAL = 70
    BUSY = 73
    """another process holds the run folder"""
    TEMPORARY = 75
    """stopped for a passing reason; run the same command again to resume"""
    AUTH = 77
    CONFIG = 78


class MuarlError(Exception):
    """A failure that is explained: `what` happened, `where`, `why`, and the `next_step`.

    Example: MuarlError("unknown setting 'grop'", where="stages/rl_train.yaml", next_step="did you mean 'group'?",
    code=ExitCode.CONFIG)
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        next_step: str = "",
        code: ExitCode = ExitCode.USAGE,
    ) -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.next_step, self.code = what, where, why, next_step, code

    def lines(self) -> list[str]:
        """The message as at most four lines, the first one being what happened."""
        parts = [("error", self.what), ("where", self.where), ("why", self.why), ("next", self.next_step)]
        return [f"{label}: {text}" for label, text in parts if text]

    def __str__(self) -> str:
        return "\n".join(self.lines())
