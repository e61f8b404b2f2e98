"""Text of models, files and servers made safe for a terminal.

Invariant: what comes out can move no cursor, change no colour and forge no line.
"""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    "\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?"  # OSC: titles, links, clipboard
    "|\x1b[PX^_][^\x1b]*(?:\x1b\\\\)?"  # DCS, SOS, PM, APC
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours and cursor
    "|\x1b[ -/]*[0-~]?"
)
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def clean(text: object, one_line: bool = False) -> str:
    """`text` without escape sequences, control and direction characters; newlines become blanks where `one_line`."""
    plain = _CONTROL.sub("", _ESCAPES.sub("", str(text).replace("\r\n", "\n")))
    return " ".join(plain.split()) if one_line else plain.replace("\t", "    ")
