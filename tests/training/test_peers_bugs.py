"""Twenty bugs that were found in other trainers and rollout engines, and the test that would find each of them here.

Most are pinned where the code that could have them is tested; `PINNED` says where, and a test below that it is there.
The rest are pinned in this file: 4 (a filter on the mean drops groups that teach), 7 (a group split over batches), 17
(tool output cut by default), 20 (id lists through an SDK).

Number 5, a filter that looks at a shaped reward, cannot happen in the same way: nothing is added to a reward here. What
is filtered on is the reward that was chosen (`reward`), which is the outcome unless a rubric or gates are asked for.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.talks import AgentOf, UserOf, WorldOf, call, hold
from fakes.templates import template_tokenizer
from fakes.toys import toy_model, toy_row

import muarl_cli.engines
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind
from muarl_cli.conversation.protocols import AgentTurn, ToolResult, UserTurn
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.engines.chat import tool_message
from muarl_cli.training.advantages import group_advantages
from muarl_cli.training.packing import micro_batches
from muarl_cli.training.template_format import open_format

TESTS = Path(__file__).resolve().parents[1]
PINNED: dict[str, tuple[str, str]] = {
    "1 a masked failure stays in baseline and std": (
        "training/test_advantages.py", "test_an_invalid_sibling_leaves_mean_and_spread",
    ),
    "2 a missing reward becomes 0.0": (
        "training/test_advantages.py", "test_a_reward_that_is_no_number_is_refused_and_never_read_as_zero",
    ),
    "3 an exception becomes 0.0": (
        "pipeline/test_play.py", "test_a_user_fault_has_no_reward_and_moves_no_sibling",
    ),
    "6 float noise on a constant group gives a huge advantage": (
        "training/test_advantages.py", "test_float_noise_on_a_constant_group_teaches_nothing",
    ),
    "8 the normaliser is that of a micro-batch": (
        "training/test_grpo.py", "test_neither_the_split_nor_the_order_of_samples_changes_the_gradient",
    ),
    "9 a mask is longer than its ids": (
        "records/test_log.py", "test_token_rows_that_are_not_finite_or_not_parallel_are_refused",
    ),
    "10 the stop marker is not trained": (
        "training/test_chat_format.py", "test_demonstration_rows_train_the_agent_and_end_with_it",
    ),
    "11 new weights never arrive": (
        "engines/test_vllm_server.py", "test_a_server_that_keeps_its_old_output_layer_is_caught",
    ),
    "11 an adapter never arrives": (
        "engines/test_vllm_server.py",
        "test_adapters_are_served_one_after_another_each_under_a_name_of_its_own",
    ),
    "12 prompts are skipped on resume": (
        "pipeline/test_rl_batches.py",
        "test_the_order_of_tasks_can_be_taken_up_anywhere_and_each_epoch_holds_every_task_once",
    ),
    "13 the user's call blocks the event loop": (
        "conversation/test_scheduler.py", "test_one_frozen_user_does_not_hold_up_the_others",
    ),
    "14 only the first tool call is used": (
        "conversation/test_loop.py", "test_several_calls_of_one_turn_are_answered_by_id_in_call_order",
    ),
    "15 a rejected request is retried for ever": (
        "wire/test_client.py", "test_permanent_refusals_stop_at_once_with_a_hint",
    ),
    "16 one 5xx kills the run": ("wire/test_served_tau2.py", "test_passing_troubles_of_the_server_change_no_score"),
    "18 a bonus a turn rewards length": (
        "scoring/test_rewards.py", "test_an_invalid_episode_has_no_reward_and_the_turns_of_a_valid_one_add_up_to_its",
    ),
    "19 the engine is dead and the trainer waits": (
        "engines/test_vllm_lost.py", "test_conversations_stay_with_their_server_and_move_on_when_it_dies",
    ),
    "19 a failed batch in this process": (
        "engines/test_hf.py", "test_a_failed_batch_fails_its_conversations_and_no_later_one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", PINNED)
def test_the_test_that_pins_a_bug_elsewhere_is_there_and_runs(bug: str) -> None:
    file, name = PINNED[bug]
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = [f for f in tree.body if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) and f.name == name]
    assert len(found) == 1
    assert not any("skip" in ast.unparse(decorator) for decorator in found[0].decorator_list)


def test_groups_are_filtered_by_their_spread_and_not_by_their_mean() -> None:
    """4: a mean strictly between 0 and 1 is no sign of a spread, and a mean outside of it is no sign of none."""
    assert not group_advantages([0.5, 0.5, 0.5], "mean").kept
    assert group_advantages([-1.0, 1.0, 0.0], "mean").kept and group_advantages([2.0, 0.0], "mean").kept


def test_a_group_larger_than_a_micro_batch_has_the_baseline_of_the_whole_group() -> None:
    """7: leave-one-out over the part of a group that fits a batch is another number than over the group."""
    rewards = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    rows = [toy_row(seed, 12) for seed in range(len(rewards))]
    batches = list(micro_batches(rows, 24, next(toy_model().parameters()).device, None))
    assert len(batches) > 1, "the group is split"
    whole = group_advantages(rewards, "loo").advantages
    assert whole == pytest.approx([r - (sum(rewards) - r) / 5 for r in rewards])
    assert whole[:3] != pytest.approx(group_advantages(rewards[:3], "loo").advantages)


async def test_a_long_answer_of_a_tool_reaches_the_agent_whole() -> None:
    """17: an answer that is cut to a few hundred characters lacks what was asked for."""
    text = "x" * 5_000 + " the price is 129.50"

    class Wordy(WorldOf):
        async def call(self, call: ToolCall, requestor: str) -> ToolResult:
            return replace(await super().call(call, requestor), text=text)

    agent = AgentOf(AgentTurn(calls=(call("look", 0),)), AgentTurn("done"))
    talk = await hold(agent, UserOf(UserTurn("please"), UserTurn("bye", EndReason.USER_STOP)), Wordy())
    assert [e.text for e in talk.events if e.kind is Kind.RESULT] == [text]
    assert [e.text for e in agent.news[1] if e.actor is Actor.WORLD] == [text]


@pytest.mark.parametrize("dialect", ["nonthinking", "thinking"])
def test_a_long_answer_of_a_tool_is_in_the_tokens_whole(dialect: str) -> None:
    """17, on its other side: what the loop hands on whole, the chat format must not cut."""
    text = '{"items": "' + "pen 48213 " * 2_000 + '", "price": 129.50}'
    chat = open_format(template_tokenizer(), "full", dialect)
    heard = chat.news([Event(0, Actor.WORLD, Kind.RESULT, text)])
    assert text in chat.decode([i for ids, _ in heard for i in ids])
    assert tool_message(Event(0, Actor.WORLD, Kind.RESULT, text, CallRecord("call_0", "look")))["content"] == text


def test_token_ids_go_over_our_own_client() -> None:
    """20: a list of 10,000 ids costs an SDK 35 ms of CPU a call; the engines import none."""
    folder = Path(muarl_cli.engines.__file__).parent
    files = sorted(folder.glob("*.py"))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "openai" for name in names), file.name
