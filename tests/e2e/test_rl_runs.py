"""What ends real runs: a watchdog, with the exit code of its reaction, after which the run goes on to the same
artifacts; and the clock."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest
from fakes.stages import PROFILE, Place, hashes

from muarl_cli.cli.console import Talk
from muarl_cli.errors import ExitCode
from muarl_cli.pipeline.policy import load_policy
from muarl_cli.pipeline.probe import _places, episodes_of
from muarl_cli.pipeline.talking import seconds_a_turn
from muarl_cli.records.checkpoint import load_latest
from muarl_cli.records.log import iter_episodes
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import RlTrain
from muarl_cli.settings.resolve import resolve

PLANTED = ("alarm_at.window=1", "alarm_at.entropy=1.0000001")
"""bounds that the second step with an update crosses: its entropy is never quite that of the first"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where a model was fine-tuned."""
    place = Place(tmp_path_factory.mktemp("place"))
    for stage in ("synth-coldstart", "sft"):
        place.run(stage)
    return place


@pytest.fixture(scope="module")
def boxed(place: Place) -> Place:
    """The same place after two steps in a time box."""
    words = [word if word != "runs/rl-train" else "runs/boxed" for word in place.command("rl-train")[1:]]
    place.muarl(*words, "--steps", "2", "schedule=linear", "stop_after_seconds=100000")
    return place


@pytest.mark.slow
def test_a_step_is_forecast_from_the_conversations_of_a_run(boxed: Place) -> None:
    words = ("plan", "--profile", str(PROFILE), "--model", "runs/sft", "--like", "runs/boxed", "--json")
    found = json.loads(boxed.muarl(*words).stdout)
    rows = [json.loads(line) for line in (boxed.folder("boxed") / "metrics.jsonl").read_text().splitlines()]
    assert found["episodes"] == 4 and found["tokens"] == pytest.approx(4 * rows[0]["tokens_per_episode"], rel=0.01)
    assert found["step_seconds"] == pytest.approx(found["rollout_seconds"] + found["update_seconds"], abs=0.011)
    assert found["rollout_seconds"] > 0 and found["memory_gb_per_device"]["training"] > 0.1


@pytest.mark.slow
def test_a_served_users_client_is_timed_without_asking_that_user(boxed: Place) -> None:
    """Nobody listens at its address, and who answers in its place is gone afterwards."""
    served = ("user.backend=llm", "user.model=gpt-4o", "user.base_url=http://127.0.0.1:9/v1")
    episodes = [episode for episode in episodes_of(boxed.folder("boxed")) if episode.rows]
    turns = [[row.ids[begin:end] for begin, end in _places(row)] for row in (e.rows[0] for e in episodes)]
    for words, asks in (((), False), (served, True)):
        settings = resolve(Stage.RL_TRAIN, overrides=words, profile_name=str(PROFILE), environ={}).settings
        assert isinstance(settings, RlTrain)
        policy = load_policy(str(boxed.folder("sft")), settings.rendering, settings.dtype, Talk(err=io.StringIO()))
        talk, asking = seconds_a_turn(policy, settings, episodes, turns)
        assert talk > 0 and (asking > 0) is asks
    assert not [thread for thread in threading.enumerate() if thread.name == "muarl-probe"]


@pytest.mark.slow
def test_the_learning_rate_of_a_time_box_follows_the_clock_and_not_the_steps(boxed: Place) -> None:
    rows = [json.loads(line) for line in (boxed.folder("boxed") / "metrics.jsonl").read_text().splitlines()]
    highest = 2.0e-4
    assert highest > rows[0]["lr"] > rows[1]["lr"] > 0.98 * highest, "of a day, hardly anything is over"
    assert all(0 < row["seconds_drawing"] <= row["seconds_rollout"] for row in rows)


@pytest.mark.slow
def test_the_checkpoint_around_which_the_agent_earned_most_is_kept_beside_the_newest(place: Place) -> None:
    words = [word if word != "runs/rl-train" else "runs/peak" for word in place.command("rl-train")[1:]]
    place.muarl(*words, "--steps", "4", "save_every=1", "keep=1")
    folder = place.folder("peak")
    earned = [json.loads(line)["reward"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    highest = max(range(1, 5), key=lambda step: (round(earned[step - 1], 6), step))
    assert (folder / "checkpoints" / "HIGHEST").read_text() == f"step-{highest:06d}\n"
    assert {path.name for path in (folder / "checkpoints").glob("step-*")} == {f"step-{highest:06d}", "step-000004"}


@pytest.mark.slow
def test_a_paused_run_and_a_stopped_one_go_on_to_the_weights_of_an_undisturbed_one(place: Place) -> None:
    place.run("rl-train")
    straight, own = place.folder("rl-train"), place.folder("paused")
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    step = [row["step"] for row in rows if "entropy" in row][1]
    words = [word if word != "runs/rl-train" else "runs/paused" for word in place.command("rl-train")[1:]]
    words += ["save_every=0", *PLANTED]
    paused = place.muarl(*words, "watchdogs.entropy=pause", code=int(ExitCode.TEMPORARY))
    assert "watchdog entropy" in paused.stderr and "watchdogs.entropy=warn" in paused.stderr
    assert _newest(own) == step, "the checkpoint is written though none was due"
    stopped = place.muarl(*words, "watchdogs.entropy=stop", code=int(ExitCode.GATE_FAILED))
    assert "stopped this run" in stopped.stderr and _newest(own) == step, "a stopped run takes no further step"
    place.muarl(*words)
    wanted, found = hashes(straight), hashes(own)
    assert found["checkpoint"] == wanted["checkpoint"]
    assert [e.end for e in iter_episodes(own)] == [e.end for e in iter_episodes(straight)]


def _newest(folder: Path) -> int:
    newest = load_latest(folder, pytest.fail)
    assert newest is not None
    return newest.step
