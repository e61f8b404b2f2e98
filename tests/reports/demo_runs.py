"""Run folders for the tests of reports: real ones, played by scripted agents, and one made of hostile text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scoring.episode_maker import Talk, make_episode

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End, Episode
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.records.log import EpisodeLog
from muarl_cli.records.run import RunFolder
from muarl_cli.records.verdicts import write_verdicts

PAYLOADS = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=2</script>",
    "<img src=x onerror=window.pwned=3>",
    '"><svg onload=window.pwned=4>',
    "<a href='javascript:window.pwned=5'>x</a>",
    "{{ 7*7 }}{% raw %}",
    "<!--<script>",
    "]]>&lt;b&gt;",
    "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07 \x1b[2J\x1b[31mred",
    "\x1b]52;c;ZXZpbA==\x07",
    "ok\rpwned",
    "a\u202ekcatta\u202c \u2066x\u2069 zero\u200bwidth",
    "[link=http://evil.example]x[/link] [bold red]loud[/]",
    "line\u2028separator",
)


def play(folder: Path, agent: str, *more: str) -> Path:
    """A real evaluation run of a scripted agent over a few retail tasks."""
    from muarl_cli.cli.app import main

    words = ["eval", "--agent", agent, "--tasks", "builtin:retail:dev", "--max-tasks", "8", "--trials", "2"]
    assert main([*words, "--out", str(folder), "--json", *more]) == 0
    return folder


def judge_all(folder: Path, verdicts: Any) -> None:
    """Write verdicts: `verdicts(episode)` is `(layers, findings)`."""
    from muarl_cli.records.log import iter_episodes

    rows = {}
    for episode in iter_episodes(folder):
        layers, findings = verdicts(episode)
        rows[episode.episode_id] = {"accepted": True, "layers": {"verdicts": layers, "findings": findings}}
    write_verdicts(folder, rows)


def hostile_run(folder: Path) -> Path:
    """A finished run in which every text that comes from outside is an attack, with verdicts and tokens."""
    episodes = [_hostile(i, text) for i, text in enumerate(PAYLOADS)]
    with RunFolder.open(folder, "eval", {"agent": PAYLOADS[0], "seed": 1, "bootstrap": 100}, free=()) as run:
        with EpisodeLog.open(folder) as log:
            log.append_many(episodes)
        run.log_metrics(1, {"reward": 0.5, PAYLOADS[0]: 1.0})
        run.finish({"tasks": len(episodes)})
    findings = [{"rule": text, "layer": "policy", "verdict": "fail", "at": 1, "why": text} for text in PAYLOADS]
    layers = {"outcome": "pass", "policy": "fail", "communication": "na", "safety": "pass", "recovery": "na"}
    write_verdicts(folder, {e.episode_id: {"layers": {"verdicts": layers, "findings": findings[:3]}} for e in episodes})
    return folder


def _hostile(i: int, text: str) -> Episode:
    talk = Talk().user(text).agent(text).call("find", ToolClass.WRITE, arguments={text: text}).agent("done")
    talk.add(talk.events[0].actor, talk.events[0].kind, text, None, text)
    made = make_episode(f"t{i} {text}", float(i % 2), events=talk.end(EndReason.USER_STOP))
    return replace(
        made,
        scenario=text,
        agent={"kind": text, "model": text},
        user={"backend": text, "model": text, "injectors_fired": [text]},
        end=End(EndReason.USER_STOP, text),
        detail={text: text},
        usage={"agent_tokens": 3, "turns": 2, "tool_calls": 1},
        rows=(TokenRow((1, 2, 3), (0, 3, 3), (0.0, -0.5, -3.0)),),
    )
