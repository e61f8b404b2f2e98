"""`muarl verify` on a scenario of a real server: calls are carried out again, and a doctored log is found out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.notes import close_pool, notes_file

from muarl_cli.cli.app import main
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.records import codec
from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.worlds.mcp.scenario import mcp_scenario

from .test_scenario import LANGUAGE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("served")
    file = notes_file(place, scenario=LANGUAGE)
    name = yaml.safe_load(file.read_text())["name"]
    out = place / "cold"
    argv = ["synth-coldstart", "--mcp-server", str(file), "--scenarios", name, "--count", "6", "--out", str(out)]
    assert main(argv) == 0
    yield out
    close_pool(mcp_scenario(name))


def verified(folder: Path, capfd: Any) -> tuple[int, dict[str, Any]]:
    capfd.readouterr()
    code = main(["verify", str(folder), "--json"])
    return code, json.loads(capfd.readouterr().out)


def doctored(run: Path, place: Path, change: Callable[[Episode], Episode]) -> Path:
    """The run with one accepted episode changed, and its line sealed again as if nothing had happened."""
    place.mkdir()
    for name in ("settings.yaml", "verdicts.jsonl"):
        (place / name).write_bytes((run / name).read_bytes())
    verdicts = read_verdicts(run)
    episodes = list(iter_episodes(run))  # as they finished, so the first one need not be one of those accepted
    at = next(i for i, e in enumerate(episodes) if verdicts.get(e.episode_id, {}).get("accepted"))
    assert episodes[at].state.initial != episodes[at].state.final
    episodes[at] = change(episodes[at])
    (place / "episodes.jsonl").write_bytes(b"".join(map(codec.encode, episodes)))
    return place


def last_note(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Episode], Episode]:
    """Change the arguments of the last note that is written."""

    def changed(episode: Episode) -> Episode:
        at = max(e.i for e in episode.events if e.kind is Kind.CALL and e.call and e.call.name == "add_note")
        event = episode.events[at]
        assert event.call is not None
        call = replace(event.call, arguments=change(dict(event.call.arguments or {})))
        return replace(episode, events=(*episode.events[:at], replace(event, call=call), *episode.events[at + 1 :]))

    return changed


def with_other_answer(episode: Episode) -> Episode:
    at = next(e.i for e in episode.events if e.actor is Actor.WORLD and e.call and e.call.name == "list_notes")
    event = replace(episode.events[at], text="milk\nchampagne")
    return replace(episode, events=(*episode.events[:at], event, *episode.events[at + 1 :]))


def test_what_was_accepted_on_a_server_is_carried_out_again_on_it(run: Path, capfd: Any) -> None:
    code, result = verified(run, capfd)
    assert (code, result["passed"], result["carried_out_again"]) == (0, 6, 6)
    assert result["not_verified"] == 0 and result["not_replayed"] == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (last_note(lambda given: {**given, "text": given["text"] + "!"}), "state/replay_not_gold"),
        (
            lambda e: replace(e, state=replace(e.state, final=e.state.initial, gold=e.state.initial)),
            "state/replay_not_logged",
        ),
        (with_other_answer, "replay/other_answer"),
    ],
    ids=["a write with an end state that looks right", "an end state", "an answer"],
)
def test_a_doctored_log_of_a_server_is_found_out(
    run: Path, tmp_path: Path, capfd: Any, change: Callable[[Episode], Episode], reason: str
) -> None:
    code, result = verified(doctored(run, tmp_path / "doctored", change), capfd)
    assert code == 1 and result["passed"] == 5
    assert reason in result["refused_for"]


def test_what_cannot_be_replayed_is_counted_and_is_no_pass(
    run: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(iter(iter_episodes(run))).scenario
    monkeypatch.setattr("muarl_cli.pipeline.reverify.installed", lambda server: False)
    code, result = verified(run, capfd)
    assert (code, result["passed"], result["not_verified"], result["failed"]) == (2, 0, 6, {})
    assert result["not_replayed"] == {name: {"episodes": 6, "why": "not replayed: server not installed"}}
