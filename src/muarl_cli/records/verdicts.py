"""Verdicts: what was judged of an episode after it was written, keyed by its id, in a file that may be rewritten.

Invariant: the log never changes because somebody judged it; `verdicts.jsonl` is replaced whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical
from muarl_cli.records import strict_json
from muarl_cli.records.files import replace_file

NAME = "verdicts.jsonl"
_MAX_LINE = 4 << 20


def write_verdicts(folder: Path, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace the verdicts of a folder: episode id to `{"accepted": bool, "layers": ..., "reasons": ...}`."""
    lines = (strict_json.dumps(canonical({"episode_id": key, **verdicts[key]})) + "\n" for key in sorted(verdicts))
    replace_file(folder / NAME, "".join(lines).encode("ascii"))


def read_verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    """Episode id to verdict; empty where nothing was judged. Raises `MuarlError` (BAD_DATA) naming the line."""
    path = folder / NAME
    found: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return found
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line:
            continue
        try:
            value = strict_json.loads(line, _MAX_LINE)
            found[value.pop("episode_id")] = value
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise MuarlError(
                "a verdict cannot be read",
                where=f"{path}:{number}",
                why=str(error)[:200],
                next_step=f"delete {NAME} and score the log again; the episodes are not affected",
                code=ExitCode.BAD_DATA,
            ) from error
    return found
