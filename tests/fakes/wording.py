"""Brains for the fake server that word an agenda's turns: faithfully, or with a planted fault."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

LEADS = ("", "Hm, ", "Well, ", "So, ")


def plan_of(body: Mapping[str, Any]) -> str:
    """What the prompt says is to be conveyed."""
    found = re.search(
        r"Say now: (.*?)(?:\n\nYour last try|\nYour last message|\Z)", body["messages"][0]["content"], re.S
    )
    assert found, body["messages"][0]["content"]
    return found.group(1).strip()


class Rewords:
    """Says each turn in slightly other words, the same for the same request: a paraphrase that keeps every fact."""

    models = ("m", "other")

    def __init__(self) -> None:
        self.served = 0

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.served += 1
        plan = plan_of(body)
        lead = LEADS[hashlib.sha256(repr(body["messages"]).encode()).digest()[0] % len(LEADS)]
        words = plan.replace("i want", "I would like").replace("please", "kindly")
        return {"content": lead + words}


class Plants(Rewords):
    """Rewords, but for the n-th request (and all further tries of it, where `always`) says what `fault` makes of it."""

    def __init__(self, fault: Callable[[str], str], at: int, tries: int = 1) -> None:
        super().__init__()
        self._fault, self._at, self._tries = fault, at, tries

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        number = self.served
        said = super().message(body)
        if self._at <= number < self._at + self._tries:
            return {"content": self._fault(plan_of(body))}
        return said


def _dice(body: Mapping[str, Any]) -> random.Random:
    """The same request gets the same noise."""
    return random.Random(repr(body["messages"]))


class NoisyUser(Rewords):
    """Words an agenda's turns as a careless model does: other words, fillers, odd capitals; and every twelfth reply is
    one that may not be said (silence, the agent's words, a number that nobody gave, the plan cut short)."""

    FILLERS = ("", "", "Thanks a lot! ", "Oh well. ", "Hope you are fine. ", "Right, so: ", "Umm... ")
    FAULTS = ("", "How can I help you today?", "It is 9999999.", "I would like something")

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        dice = _dice(body)
        if dice.random() < 1 / 12:
            return {"content": dice.choice(self.FAULTS)}
        words = str(super().message(body)["content"])
        words = dice.choice((str, str.capitalize, lambda text: text.replace(" i ", " I ")))(words)
        return {"content": dice.choice(self.FILLERS) + words}


class NoisyAgent:
    """Words a scripted agent's sentences as large models do: politeness, bullet lists, bold values, long announcements.

    The sentence is the last message of the request; values stay as they are."""

    models = ("m",)
    LEADS = (
        "",
        "Sure, I'd be happy to help with that! ",
        "Thank you for the information. ",
        "I understand. ",
        "Great, thanks! ",
    )
    SWAPS = (
        (r"please tell me (.+?)\.", ("Could you please provide {0}?", "To proceed, I'll need {0}, please.",
                                     "May I have {0}?", "Please share the following details:\n\n- {0}")),
        (r"i still need to know (.+?)\.", ("In order to continue I need {0}. Could you share that?",
                                           "Could you also let me know {0}?")),
        (r"shall i go ahead\?", ("Would you like me to proceed? (yes/no)", "Do you confirm these details?",
                                 "Shall I go ahead with this?")),
        (r"i would (.+?)\. is that right\?", ("Here is what I will do: {0}. Is that correct?",
                                              "Just to confirm: {0}. Do you agree?")),
        (r"^done, (.+?)\.", ("I've successfully completed your request: {0}.", "All set! {0}.",
                             "Your request has been processed: {0}.")),
        (r"anything else\?", ("Is there anything else I can help you with today?",
                              "Let me know if there's anything else I can assist you with!")),
        (r"^sorry, (.+?)\.", ("I'm sorry, but unfortunately {0}.", "I apologize for the inconvenience, however {0}.")),
        (r"goodbye!", ("Have a wonderful day!", "Thank you for contacting us. Goodbye!")),
    )  # fmt: skip

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        dice, text = _dice(body), str(body["messages"][-1]["content"])
        for pattern, options in self.SWAPS:
            option = dice.choice(options)
            text = re.sub(pattern, lambda found, form=option: form.format(*found.groups()), text)
        if dice.random() < 0.3:
            text = re.sub(r"(?<!\w)(\d{3,})(?!\w)", r"**\1**", text)
        if dice.random() < 0.3:
            text = text.replace("'", "\u2019")
        lead = dice.choice(self.LEADS)
        return {"content": lead + (text[:1].upper() + text[1:] if lead else text)}
