"""A conversation as plain text, for judges that are models and for people who review.

Invariant: every word and every call of the log is there, in order; what a model said cannot pose as a line of another
party, since its own line breaks are indented.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from muarl_cli.conversation.events import Event, Kind


def as_text(events: Sequence[Event]) -> str:
    """A line a thing said or done."""
    return "\n".join(line_of(event) for event in events if event.kind is not Kind.END)


def line_of(event: Event) -> str:
    """One event as a line: who, what."""
    call = event.call
    if call is None:
        what = f"{event.actor.value}: {event.text}"
    elif event.kind is Kind.CALL:
        given = event.text if call.arguments is None else json.dumps(dict(call.arguments), ensure_ascii=False)
        what = f"{event.actor.value} calls {call.name}: {given}"
    else:
        what = f"{'error' if event.kind is Kind.ERROR else 'answer'} of {call.name}: {event.text}"
    return what.replace("\n", "\n    ")
