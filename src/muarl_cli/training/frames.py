"""What a chat template puts around each turn, learned from the template itself by differences.

A conversation is rendered with and without one more message, and the text that was added is taken apart around the
message's own words. Invariant: nothing is guessed. What cannot be read off the differences, because the template
rewrites what it rendered before or marks turns with ordinary text, is refused with the two texts' first difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.call_syntax import Calls, learn_syntax
from muarl_cli.training.hermes import CallSyntax

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Frames:
    """The texts around turns. Those that begin or end a turn hold a control token, which no party can write."""

    user: tuple[str, str]
    results: tuple[str, str, str]
    """before the first result of a turn, between two, after the last"""
    prompt: str
    """before the turn that the policy is about to take"""
    recall: str
    """before an earlier turn of words that had no thoughts"""
    retold: Mapping[bool, tuple[str, str, str]]
    """before an earlier turn of words, of calls, or of both, by whether thoughts of it are left out"""
    before_end: str
    end: str
    """the control token that ends a sampled turn"""
    after_end: str
    thought: tuple[str, str] | None
    """the control tokens around thoughts; None where the template shows none, or its prompt leaves no room for any"""
    forgets: bool
    """whether thoughts of earlier turns, or the empty ones of a prompt, are left out once the user has spoken again"""
    syntax: CallSyntax
    trims_user: bool
    trims_results: bool
    quotes_results: bool
    """results are JSON strings"""

    @property
    def closing(self) -> str:
        return self.before_end + self.end + self.after_end


_MENDS = {
    "call": "write every call of a turn as JSON, between tags or as Python, in a copy of chat_template.jinja; a model "
    "whose template has no calls was never shown any",
    "several calls": "let a copy of chat_template.jinja write all calls of a turn, and the results one after the other",
    "end of turn": "let a copy of chat_template.jinja end turns with a control token of their own",
}


def refused(probe: str, why: str, template: str = "chat_template.jinja") -> MuarlError:
    """The template cannot be trained with: which probe failed, and what to do."""
    general = (
        "for a Qwen3 checkpoint set chat=nonthinking or chat=thinking; else mend chat_template.jinja in a copy of the "
        "folder until it only ever appends"
    )
    return MuarlError(
        f"the checkpoint's chat template fails the probe {probe!r}",
        where=template,
        why=why,
        next_step=_MENDS.get(probe, general),
        code=ExitCode.BAD_DATA,
    )


def difference(wanted: str, found: str) -> str:
    """Where two texts part, and how each goes on."""
    at = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found)))
    before = wanted[max(0, at - 24) : at]
    return f"after {before!r} one goes on {wanted[at : at + 48]!r}, the other {found[at : at + 48]!r}"


class Renderer:
    """A template as a function of messages. Where it raises, the conversation is refused under the probe's name."""

    def __init__(self, tokenizer: Any, template: str) -> None:
        self.template = template
        self._special = {k: v for k, v in getattr(tokenizer, "special_tokens_map", {}).items() if isinstance(v, str)}

    def __call__(
        self, messages: Sequence[Message], probe: str, *, tools: Sequence[Any] = (), prompt: bool = False
    ) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        given = {"tools": list(tools) or None, "add_generation_prompt": prompt, **self._special}
        try:
            (text,), _ = render_jinja_template([list(messages)], chat_template=self.template, **given)
        except Exception as error:  # templates raise what they like
            raise refused(probe, f"the template raises {type(error).__name__}: {str(error)[:200]}") from error
        return str(text)


def system(text: str) -> list[Message]:
    return [{"role": "system", "content": text}] if text else []


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def turn(text: str, calls: Calls = (), thought: str = "") -> Message:
    """An assistant message as the chat-completions API has it."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            {"id": f"call{place:05d}", "type": "function", "function": {"name": name, "arguments": dict(arguments)}}
            for place, (name, arguments) in enumerate(calls)
        ]
    return message


def result(name: str, text: str, place: int = 0) -> Message:
    return {"role": "tool", "name": name, "tool_call_id": f"call{place:05d}", "content": text}


CONTEXT: tuple[Message, ...] = (*system("You help at a desk."), user("first question"))
_WORDS, _NEXT, _THOUGHT = "plain words", "second question", "quiet reasoning"
_FIRST, _SECOND = 'result "one"', 'result "two"'
_CALLS = (("look_up", {"key": "value one"}), ("look_up", {"key": "value two"}))


def learn(render: Renderer, controls: Collection[str]) -> Frames:
    """The frames of a template. `controls` are the tokenizer's control tokens. Raises `MuarlError` (BAD_DATA)."""
    base = render(CONTEXT, "rendering")
    prompt = _after("generation prompt", base, render(CONTEXT, "generation prompt", prompt=True))
    silent = render([*CONTEXT, turn(_WORDS)], "say")
    said = render([*CONTEXT, turn(_WORDS, thought=_THOUGHT)], "say")
    if not said.startswith(base + prompt) and silent.startswith(base + prompt):
        said = silent  # the prompt closes an empty thought: a sampled turn has no room for one
    given = _THOUGHT if _THOUGHT in said else ""
    spoken = _after("say", base + prompt, said)
    opening, closing = _around("say", spoken, _WORDS)
    before_end, end, after_end = _ending(closing, controls)
    thought = _thought(prompt, opening, controls)
    recall, asked = _around("user", _after("user", base, _history(render, "")), _WORDS)
    user_frame = _around("user", _after("user", closing, asked), _NEXT)
    forgets = not _history(render, given).startswith(said)
    trims_user = _trims("user", _history(render, "", f"  {_NEXT} \n"), _history(render, ""), _NEXT)

    def shown(calls: Calls) -> str:
        called = _after("call", base + prompt, render([*CONTEXT, turn("", calls, given)], "call"))
        body = _before("call", called, closing)
        return body.split(thought[1])[-1] if thought else body

    def retold(past: str) -> tuple[str, str, str]:
        """What stands before an earlier turn of words, of calls, or of both, once the user has spoken."""
        found = []
        for text, calls in ((_WORDS, ()), ("", _CALLS[:1]), (_WORDS, _CALLS[:1])):
            said = render([*CONTEXT, turn(text, calls, given)], "user")
            body = _before("user", _after("user", base + prompt, said), closing)
            body = body.split(thought[1])[-1].lstrip() if thought else body
            answers = [result(name, _FIRST) for name, _ in calls]
            later = render([*CONTEXT, turn(text, calls, past), *answers, user(_NEXT)], "user")
            told, _, after = later.removeprefix(base).partition(body)
            if not later.startswith(base) or not after.startswith(closing) or (given and given in told):
                raise refused("user", f"a user turn rewrites what came before it: {difference(said, later)}")
            found.append(told)
        return found[0], found[1], found[2]

    syntax = _syntax(shown)
    results, quotes, trims_results = _results(render, given)
    return Frames(
        user=user_frame,
        results=results,
        prompt=prompt,
        recall=recall,
        retold={thinks: retold(given if thinks else "") for thinks in (False, True)} if forgets else {},
        before_end=before_end,
        end=end,
        after_end=after_end,
        thought=thought,
        forgets=forgets,
        syntax=syntax,
        trims_user=trims_user,
        trims_results=trims_results,
        quotes_results=quotes,
    )


def _syntax(shown: Callable[[Calls], str]) -> CallSyntax:
    if (syntax := learn_syntax(shown)) is not None:
        return syntax
    body = shown(_CALLS[:1]).strip()
    if not body:
        raise refused("call", "the template leaves calls out")
    raise refused("call", f"the call is neither JSON, nor text between tags, nor Python: {body[:160]!r}")


def _history(render: Renderer, thought: str, said: str = _NEXT) -> str:
    return render([*CONTEXT, turn(_WORDS, thought=thought), user(said)], "user")


def _after(probe: str, start: str, text: str) -> str:
    if not text.startswith(start):
        raise refused(probe, f"what was rendered before is rewritten: {difference(start, text)}")
    return text[len(start) :]


def _before(probe: str, text: str, end: str) -> str:
    if not text.endswith(end):
        raise refused(probe, f"the turn ends otherwise than one of words: {text[-48:]!r} and not {end!r}")
    return text[: len(text) - len(end)]


def _around(probe: str, text: str, words: str) -> tuple[str, str]:
    before, found, after = text.partition(words)
    if not found:
        raise refused(probe, f"the words {words!r} are not in what was added: {text[:96]!r}")
    return before, after


def _controls_in(text: str, controls: Collection[str]) -> list[str]:
    names = sorted(controls, key=lambda token: (-len(token), token))
    return re.findall("|".join(map(re.escape, names)), text) if names else []


def _ending(closing: str, controls: Collection[str]) -> tuple[str, str, str]:
    found = _controls_in(closing, controls)
    if not found:
        raise refused("end of turn", f"a turn ends with ordinary text, {closing!r}, which anybody can write")
    before, after = closing.split(found[0], 1)
    return before, found[0], after


def _thought(prompt: str, opening: str, controls: Collection[str]) -> tuple[str, str] | None:
    if _THOUGHT not in opening:
        return None
    before, after = opening.split(_THOUGHT, 1)
    opened, closed = _controls_in(prompt + before, controls), _controls_in(after, controls)
    if not opened or not closed:
        raise refused("thought", f"thoughts are marked with ordinary text: {before!r} and {after!r}")
    return opened[-1], closed[0]


def _trims(probe: str, padded: str, plain: str, words: str) -> bool:
    if padded == plain:
        return True
    start = plain.rindex(words)
    if padded == f"{plain[:start]}  {words} \n{plain[start + len(words) :]}":
        return False
    raise refused(probe, f"words are changed: {difference(plain, padded)}")


def _results(render: Renderer, thought: str) -> tuple[tuple[str, str, str], bool, bool]:
    """Frames of results; whether they are quoted; whether they are trimmed."""
    asked = [*CONTEXT, turn("", _CALLS[:1], thought)]
    one = render(asked, "call")
    name = _CALLS[0][0]
    added = _after("results", one, render([*asked, result(name, _FIRST)], "results"))
    quotes = _FIRST not in added
    first, second = (json.dumps(text) if quotes else text for text in (_FIRST, _SECOND))
    before, after = _around("results", added, first)
    two = [*CONTEXT, turn("", _CALLS, thought)]
    both = _after(
        "several calls",
        render(two, "several calls"),
        render([*two, result(name, _FIRST), result(name, _SECOND, 1)], "several calls"),
    )
    rest = _after("several calls", before, both)
    between, end = _around("several calls", _after("several calls", first, rest), second)
    if end != after:
        raise refused("several calls", f"the last result ends otherwise: {difference(after, end)}")
    padded = render([*asked, result(name, f"  {_FIRST} \n")], "results")
    return (before, between, after), quotes, not quotes and _trims("results", padded, one + added, _FIRST)
