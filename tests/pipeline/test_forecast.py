"""The simulator against steps that can be worked out by hand, and what must hold for any."""

from __future__ import annotations

import asyncio
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.cli.console import Talk
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.engines import generation
from muarl_cli.engines.hf import HFEngine
from muarl_cli.errors import MuarlError
from muarl_cli.pipeline import sheet
from muarl_cli.pipeline.drawing import GO_TOGETHER, PATIENCE, Local, Served, Turn, made_of
from muarl_cli.pipeline.forecast import Rates, Work, forecast
from muarl_cli.pipeline.plan import plan, shape_of
from muarl_cli.pipeline.probe import fitted, held, teaching_share, work_of
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import RlTrain
from muarl_cli.settings.resolve import resolve

ENGINE = Served(decode_base=0.01, decode_row=0.001, prefill=1000.0)
TALK = Talk(json=True)
SLOW = Rates(ENGINE, train=500.0)
BATCHES = Rates(Local((0.0, 0.0, 0.0, 0.001, 0.01, 0.001, 0.0)), train=500.0)
"""the same costs of what is fed and drawn, in batches that are drawn to their end"""
KINDS = pytest.mark.parametrize("rates", [SLOW, BATCHES], ids=["served", "gathered"])
PAPER: RlTrain = resolve(Stage.RL_TRAIN, profile_name="paper-8b", environ={}).settings  # type: ignore[assignment]
WORKS = st.lists(
    st.lists(st.builds(Turn, st.integers(1, 50), st.integers(1, 30), st.booleans()), min_size=1, max_size=6).map(tuple),
    min_size=1,
    max_size=12,
).map(lambda episodes: Work(tuple(episodes), 0.5, 10.0))


@KINDS
def test_one_conversation_takes_what_its_turns_take(rates: Rates) -> None:
    work = Work(((Turn(100, 20, True), Turn(50, 10, False)),), 1.0, 0.0)
    found = forecast(work, rates, user_latency=2.0, in_flight=4)
    drawing = 30 * 0.011 + 150 / 1000
    assert found.rollout_seconds == pytest.approx(2.0 + drawing)
    assert found.update_seconds == pytest.approx(180 / 500)
    assert found.idle_share == pytest.approx(2.0 / (2.0 + drawing + 0.36))


def test_two_conversations_share_their_steps_and_one_slot_shares_nothing() -> None:
    work = Work(((Turn(1, 20, False),), (Turn(1, 10, False),)), 0.0, 0.0)
    together = forecast(work, SLOW, 0.0, in_flight=2).rollout_seconds
    apart = forecast(work, SLOW, 0.0, in_flight=1).rollout_seconds
    assert together == pytest.approx(0.002 + 10 * 0.012 + 10 * 0.011)
    assert apart == pytest.approx(0.002 + 30 * 0.011)


def test_a_batch_carries_finished_rows_along_until_enough_of_them_have_ended_or_one_has_waited() -> None:
    assert (GO_TOGETHER, PATIENCE) == (generation.GO_TOGETHER, generation.PATIENCE)
    rows = [(0, 1, drawn) for drawn in (1, 2, 3, 4, 5, 6, 7, 8, 9, 20)]
    row_steps = 3 * 10 + 2 * 7 + 2 * 5 + 1 * 3 + 1 * 2 + 11 * 1  # a quarter of the rows leaves each time
    assert made_of(rows)[0] == 6 and made_of(rows)[4:6] == (20, row_steps)
    many = [(0, 1, 5)] + [(0, 1, 50)] * 9
    assert made_of(many)[:1] + made_of(many)[4:6] == (2, 50, 10 * (5 + PATIENCE - 1) + 9 * (50 - 5 - PATIENCE + 1))
    fed = made_of([(5, 3, 4), (7, 9, 4)])
    assert fed[:4] == (1, 2, 12, 18)
    assert fed[4:] == (4, 8, 8 * (16 + 4 / 2))


def test_conversations_of_this_process_go_in_waves_and_served_ones_fill_each_free_place() -> None:
    long, short = (Turn(1, 100, False),), (Turn(1, 10, False),)
    work = Work((long, short, short, short), 0.0, 0.0)
    served, waves = (forecast(work, rates, 0.0, in_flight=2).rollout_seconds for rates in (SLOW, BATCHES))
    assert served == pytest.approx(0.004 + 30 * 0.012 + 70 * 0.011)
    assert waves == pytest.approx(0.004 + (10 * 0.012 + 90 * 0.011) + 10 * 0.012)


def test_what_a_turn_takes_beside_the_model_is_time_in_which_the_engine_waits() -> None:
    work = Work(((Turn(1, 10, False),) * 3,) * 4, 0.0, 0.0)
    busy, slower = (forecast(work, Rates(Local(BATCHES.engine.costs, 0.0, talk), 1.0), 0.0, 9) for talk in (0.0, 0.01))  # type: ignore[attr-defined]
    assert slower.rollout_seconds == pytest.approx(busy.rollout_seconds + 3 * 4 * 0.01)
    assert busy.idle_share == 0 and slower.idle_share == pytest.approx(0.12 / slower.step_seconds)


def test_asking_a_served_user_is_time_in_which_the_engine_waits_beside_the_users_own() -> None:
    work = Work(((Turn(1, 10, True), Turn(1, 10, False), Turn(1, 10, True)),) * 4, 0.0, 0.0)
    costs = BATCHES.engine.costs  # type: ignore[attr-defined]
    plain, asked = (forecast(work, Rates(Local(costs, 0.0, 0.0, asking), 1.0), 2.0, 9) for asking in (0.0, 0.01))
    assert asked.rollout_seconds == pytest.approx(plain.rollout_seconds + 2 * 4 * 0.01)
    assert plain.idle_share == pytest.approx(4 / plain.step_seconds)
    assert asked.idle_share == pytest.approx(4.08 / asked.step_seconds)


def test_between_two_visits_of_a_batch_the_engine_pauses() -> None:
    work = Work(((Turn(1, 10, False),) * 3, (Turn(1, 10, False),) * 2), 0.0, 0.0)
    costs = BATCHES.engine.costs  # type: ignore[attr-defined]
    plain, paused = (forecast(work, Rates(Local(costs, pause), 1.0), 0.0, 9) for pause in (0.0, 0.01))
    assert paused.rollout_seconds == pytest.approx(plain.rollout_seconds + 3 * 0.01)
    assert plain.idle_share == 0 and paused.idle_share == pytest.approx(0.03 / paused.step_seconds)


def test_groups_that_teach_nothing_are_held_and_trained_anew() -> None:
    work = Work(((Turn(1, 10, False),),) * 8, 0.5, 0.0)
    plain, refilled = (forecast(work, SLOW, 0.0, 99, refills) for refills in (0, 2))
    assert plain.update_seconds == pytest.approx(0.5 * 88 / 500)
    assert refilled.update_seconds == pytest.approx((1 - 0.5**3) * 88 / 500)
    each = [0.001 * count + 10 * (0.01 + 0.001 * count) for count in (8, 4, 2)]
    assert refilled.rollout_seconds == pytest.approx(sum(each)) and plain.rollout_seconds == pytest.approx(each[0])


@KINDS
@given(work=WORKS, slots=st.integers(1, 8), latency=st.floats(0, 5))
def test_a_step_is_no_shorter_than_its_longest_conversation_and_no_longer_than_one_by_one(
    rates: Rates, work: Work, slots: int, latency: float
) -> None:
    found = forecast(work, rates, latency, slots)
    alone = [
        sum(t.fed / 1000 + t.drawn * 0.011 + (latency if t.of_user else 0) for t in episode)
        for episode in work.episodes
    ]
    fed = max(t.fed for episode in work.episodes for t in episode)  # a gathered batch feeds all as much as the longest
    most = sum(
        fed / 1000 + t.drawn * (0.01 + 0.001 * slots) + (latency if t.of_user else 0)
        for episode in work.episodes
        for t in episode
    )
    assert max(alone) - 1e-6 <= found.rollout_seconds <= most + 1e-6
    assert 0 <= found.idle_share <= 1
    assert forecast(work, rates, latency, slots) == found


@given(WORKS)
def test_a_slow_user_makes_a_step_longer_and_engines_idle(work: Work) -> None:
    quick, slow = (forecast(work, SLOW, latency, 99) for latency in (0.0, 100.0))
    asks = max(sum(turn.of_user for turn in episode) for episode in work.episodes)
    assert slow.rollout_seconds >= 100 * asks and quick.idle_share < 1e-9
    assert (slow.idle_share > 0.5) == (asks > 0)


def test_what_all_begin_with_is_read_once_and_trained_in_every_row() -> None:
    def row(*runs: tuple[Owner, int], start: int) -> TokenRow:
        owners = tuple(int(owner) for owner, count in runs for _ in range(count))
        ids = tuple(range(10)) + tuple(range(start, start + len(owners) - 10))
        return TokenRow(ids, owners, tuple(0.0 for _ in owners))

    first = row((Owner.TEMPLATE, 10), (Owner.USER, 4), (Owner.AGENT, 3), (Owner.WORLD, 5), (Owner.AGENT, 2), start=100)
    second = row((Owner.TEMPLATE, 10), (Owner.USER, 2), (Owner.AGENT, 6), (Owner.USER, 1), start=500)

    class Log:
        def __init__(self, row: TokenRow, reward: float, group: str) -> None:
            self.rows, self.reward, self.group_id, self.scenario = (row,), reward, group, "s"

    logs: Any = [Log(first, 1.0, "a"), Log(second, 0.0, "a"), Log(first, 1.0, "b"), Log(second, 1.0, "b")]
    work = work_of(logs, 5, 2)
    assert work.episodes[0] == (Turn(4, 3, True), Turn(5, 2, False))
    assert work.episodes[1] == (Turn(2, 6, True),) and work.episodes[4] == work.episodes[0]
    assert work.shared == 10 and work.taught == 0.5


def test_the_share_of_groups_that_teach_is_carried_over_to_larger_groups() -> None:
    assert teaching_share([[1, 0], [1, 1], [0, 0], [0, 1]], 2) == 0.5
    coins = [[float(bit) for bit in f"{number:04b}"] for number in range(16)]  # every outcome of four fair tosses
    assert teaching_share(coins, 8) == pytest.approx(1 - 2 / 2**8, abs=0.01)
    decided = [[1.0] * 4, [0.0] * 4, [1.0] * 4, [0.0] * 4]
    assert teaching_share(decided, 8) < 0.02 and teaching_share([[1.0, 1.0]], 8) == 0.0
    mixed = [[1, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert 0.5 < teaching_share(mixed, 8) < teaching_share(mixed, 16) < 1


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 2**32))
def test_costs_are_found_again_from_batches_of_different_makes(costs: list[float], seed: int) -> None:
    draw = random.Random(seed)
    made = [tuple(draw.uniform(0.5, 2) for _ in costs) for _ in range(40)]
    seen = [(each, sum(a * b for a, b in zip(each, costs, strict=True)) + 1e-9) for each in made]
    found = fitted(seen)
    for each, seconds in seen:
        assert sum(a * b for a, b in zip(each, found, strict=True)) == pytest.approx(seconds, rel=0.02, abs=1e-6)
    assert min(found) >= 0


def test_a_batch_of_the_probe_is_made_of_what_the_engine_counts() -> None:
    from fakes.toys import toy_model

    def row(seed: int) -> TokenRow:
        draw = random.Random(seed)
        owners = (
            [0] * 6 + [int(Owner.AGENT)] * draw.randint(1, 9) + [1] * 4 + [int(Owner.AGENT)] * draw.randint(1, 9) + [1]
        )
        return TokenRow(tuple(draw.randrange(3, 30) for _ in owners), tuple(owners), (0.0,) * len(owners))

    engine = HFEngine(toy_model(), "fp32")
    wave = [row(seed) for seed in range(5)]
    made = [each for each, *_ in asyncio.run(held(engine, wave, 0.0, made_of))]
    drawn = sum(owner == Owner.AGENT for each in wave for owner in each.owners)
    assert engine.stats["joins"] == len(made) == 2 and engine.stats["rows"] == sum(each[1] for each in made)
    assert engine.stats["sampled_tokens"] == drawn <= sum(each[5] for each in made)
    assert engine.stats["fed_tokens"] <= sum(each[3] for each in made)
    engine.close()


def test_more_devices_and_faster_ones_are_faster_and_hold_less_each() -> None:
    shape = sheet.QWEN3["32B"]
    seconds = {}
    for gpu, gpus in (("h100", 16), ("h200", 16), ("h200", 32)):
        seconds[gpu, gpus] = plan(PAPER, "Qwen/Qwen3-32B", gpu, gpus, 2.0, None, TALK)["step_seconds"]
    assert seconds["h200", 32] < seconds["h200", 16] < seconds["h100", 16]
    widths = [sheet.widths_of(shape, sheet.DEVICES[gpu], gpus) for gpu, gpus in (("h100", 32), ("a100", 1))]
    assert widths == [[2, 4, 8], [1]]
    layouts = [sheet.Layout(sheet.Engine.SERVERS, 4, 2, 2, n) for n in (32, 8)]
    small, large = (sheet.memory_gb(shape, layout, 32768, 256, 8000)["training"] for layout in layouts)
    assert small < large and large == pytest.approx(32.76 * 16 / 8 + 32768 * 64 * 5120 * 2 * 1.2 / 1e9, abs=0.1)


def test_a_plan_says_what_the_user_model_costs_and_whether_the_memory_is_enough() -> None:
    found = plan(PAPER, "Qwen/Qwen3-32B", "a100", 1, 2.0, None, TALK)
    assert not found["fits"] and found["user_usd_per_step"] > 0 and found["idle_share"] > 0
    assert 0.01 < found["user_usd_per_step"] / found["episodes"] < 0.1  # as the paper's profile budgets a conversation
    listed = plan(PAPER, "Qwen/Qwen3-8B", "h200", 8, 2.0, None, TALK)["user_usd_per_step"]
    dear = ["user.model=own", 'prices={"own": {"input": 5.0, "output": 20.0}}']  # twice the list price of the default
    own = resolve(Stage.RL_TRAIN, profile_name="paper-8b", overrides=dear, environ={}).settings
    assert plan(own, "Qwen/Qwen3-8B", "h200", 8, 2.0, None, TALK)["user_usd_per_step"] == pytest.approx(
        2 * listed, rel=1e-3
    )  # type: ignore[arg-type]
    free = resolve(Stage.RL_TRAIN, profile_name="paper-8b", overrides=["user.backend=scripted"], environ={}).settings
    assert plan(free, "Qwen/Qwen3-8B", "h200", 8, 0.0, None, TALK)["user_usd_per_step"] == 0  # type: ignore[arg-type]


def test_the_size_of_a_folders_model_is_that_of_its_weights(tmp_path: Path) -> None:
    import torch
    from fakes.toys import toy_model
    from safetensors.torch import save_file

    model = toy_model()
    model.config.save_pretrained(tmp_path)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert shape_of(str(tmp_path)).weights == matrices
    config = json.loads((tmp_path / "config.json").read_text())
    assert shape_of(str(tmp_path)).width == config["hidden_size"] and math.isfinite(shape_of("Qwen/Qwen3-8B").weights)
    for unknown in ("", "somebody/else"):
        with pytest.raises(MuarlError):
            shape_of(unknown)
    run = tmp_path / "run" / "checkpoints" / "step-000001"
    run.mkdir(parents=True)
    with pytest.raises(MuarlError, match=r"is not intact|no checkpoint"):
        shape_of(str(tmp_path / "run"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    save_file({"w": torch.zeros(1)}, tmp_path / "adapter" / "adapter_model.safetensors")
    assert shape_of(str(tmp_path / "adapter")) == shape_of(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(MuarlError, match="not those of a plain decoder"):
        shape_of(str(tmp_path))


def sheet_plan(*own: str, model: str = "Qwen/Qwen3-32B", **given: Any) -> dict[str, Any]:
    """The plan of the paper's settings with others, from the data sheet."""
    resolved = resolve(Stage.RL_TRAIN, profile_name="paper-32b-4x8", overrides=own, environ={}).settings
    named: dict[str, Any] = {"gpu": "h100", "gpus": 8, "latency": 2.0, "like": None, "talk": TALK} | given
    return plan(resolved, model, **named)  # type: ignore[arg-type]


SERVED = ("engines=http://a:1/v1", "importance_cap=2", "prompts_per_step=4")


def test_servers_have_accelerators_of_their_own_and_the_split_is_that_of_the_shortest_step() -> None:
    small = (*SERVED, "micro_batch_tokens=4096")
    eight = {"model": "Qwen/Qwen3-8B", "gpus": 4}
    found = sheet_plan(*small, **eight)
    each = [sheet_plan(*small, engine_gpus=n, **eight) for n in (1, 2, 3)]
    assert [(e["engine_gpus"], e["training_gpus"]) for e in each] == [(1, 3), (2, 2), (3, 1)]
    fitting = [e["step_seconds"] for e in each if e["fits"]]
    assert fitting and found["step_seconds"] == min(fitting) and found["fits"]
    assert found["engine_gpus"] + found["training_gpus"] == 4


def test_staleness_changes_the_forecast_and_says_who_waits() -> None:
    apart, ahead = (sheet_plan(*SERVED, f"staleness={k}", gpus=32, engine_gpus=16) for k in (0, 1))
    assert ahead["step_seconds"] < apart["step_seconds"] and (apart["staleness"], ahead["staleness"]) == (0, 1)
    assert ahead["trainer_idle_share"] < apart["trainer_idle_share"]
    assert ahead["rollout_idle_share"] < apart["rollout_idle_share"]
    assert ahead["memory_gb_per_device"]["drawing"] >= apart["memory_gb_per_device"]["drawing"]


def test_whole_weights_take_their_time_to_the_servers_and_an_adapter_or_an_engine_here_none() -> None:
    whole, adapter = (sheet_plan(*SERVED, *own, gpus=32, engine_gpus=16) for own in ((), ("lora.rank=8",)))
    assert whole["delivery_seconds"] == pytest.approx(2 * 32.76e9 * 2 / sheet.FOLDER, abs=0.01)
    assert whole["update_seconds"] == pytest.approx(adapter["update_seconds"] + whole["delivery_seconds"], abs=0.02)
    assert adapter["delivery_seconds"] == sheet_plan(model="Qwen/Qwen3-8B", gpus=1)["delivery_seconds"] == 0


def test_it_fits_only_where_training_and_drawing_do() -> None:
    many, few = (sheet_plan(*SERVED, gpus=32, engine_gpus=n) for n in (16, 1))
    assert many["fits"] and not few["fits"]
    assert few["memory_gb_per_device"]["training"] < 80 < few["memory_gb_per_device"]["drawing"]
    crowded = sheet_plan(*SERVED, gpus=32, engine_gpus=28)
    assert not crowded["fits"] and crowded["memory_gb_per_device"]["drawing"] < 80


def test_an_engine_in_the_trainers_process_draws_on_what_trains() -> None:
    alone = sheet_plan(model="Qwen/Qwen3-8B", gpus=1)
    assert (alone["engines"], alone["engine_gpus"], alone["training_gpus"]) == (1, 1, 1)
    state = 16 * 8.19
    assert alone["memory_gb_per_device"]["drawing"] > state, "the trainer's state stays where it is"
    vllm = sheet_plan("engines=vllm?tensor_parallel_size=2", model="Qwen/Qwen3-8B", gpus=8)
    assert (vllm["engines"], vllm["engine_gpus"], vllm["training_gpus"]) == (1, 2, 8)
    assert "no engine is named" not in vllm["assumed"] and "no engine is named" in sheet_plan(gpus=8)["assumed"]


def test_each_address_stands_for_an_engine_at_least() -> None:
    one, two = (
        sheet_plan(f"engines={urls}", gpus=8, engine_gpus=4)
        for urls in ("http://a:1/v1", '["http://a:1/v1","http://b:1/v1"]')
    )
    assert one["engines"] in (1, 2) and two["engines"] == 2


@pytest.mark.parametrize(
    ("own", "given"),
    [
        (SERVED, {"gpus": 1}),
        (SERVED, {"gpus": 8, "engine_gpus": 8}),
        ((), {"gpus": 1, "engine_gpus": 1}),
        (('engines=["http://a:1/v1","http://b:1/v1"]',), {"gpus": 8, "engine_gpus": 1}),
        (("engines=vllm",), {"gpus": 8, "engine_gpus": 4}),
        (("engines=vllm?tensor_parallel_size=4",), {"gpus": 2}),
    ],
)
def test_accelerators_that_leave_nobody_to_draw_or_to_train_are_refused(
    own: tuple[str, ...], given: dict[str, Any]
) -> None:
    with pytest.raises(MuarlError) as error:
        sheet_plan(*own, **given)
    assert error.value.next_step
