"""Rows from elsewhere become episodes or are refused with a reason; rows for elsewhere come back as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scoring.judged_talks import talks

from muarl_cli.cli.app import main
from muarl_cli.conversation.events import Actor, Kind, ToolClass
from muarl_cli.records.chat_rows import functions, read_row
from muarl_cli.records.log import EpisodeLog, iter_episodes
from muarl_cli.records.verdicts import read_verdicts, write_verdicts

TOOLS = [
    {
        "name": name,
        "description": f"{name} of a flat",
        "parameters": {"type": "object", "properties": {"flat_id": {"type": "string"}}, "required": ["flat_id"]},
    }
    for name in ("get_flat", "book_viewing")
]
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "get_flat", "arguments": '{"flat_id": "F17"}'},
}


def released(number: int, *more: dict[str, Any], tools: Any = None) -> dict[str, Any]:
    """A row in the form of the released dataset: JSON text, and one wrapper around all tools."""
    messages = [
        {"role": "system", "content": "You rent out flats for the people who ask you, and you do what they want."},
        {"role": "user", "content": "is flat F17 free for me on May 3rd?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"free": true, "rent": 900}'},
        {"role": "assistant", "content": "flat F17 is free on May 3rd, for $900. would you like to see it?"},
        {"role": "user", "content": "no, thanks. ###STOP###"},
        *more,
    ]
    wrapped = {"type": "function", "function": TOOLS if tools is None else tools}
    return {
        "id": f"00000000-{number:04d}",
        "source": "real_estate_rental_en",
        "messages": json.dumps(messages),
        "tools": json.dumps([wrapped]),
    }


APIGEN = {
    "system": "You sell tickets for the people who ask you, and you do what they want.",
    "conversations": [
        {"from": "human", "value": "a ticket for show S9 please"},
        {"from": "function_call", "value": '{"name": "get_flat", "arguments": {"flat_id": "S9"}}'},
        {"from": "observation", "value": "ok"},
        {"from": "gpt", "value": "your ticket for show S9 is there."},
    ],
    "tools": json.dumps(TOOLS),
}


def _import(tmp_path: Path, rows: list[Any], code: int = 0, name: str = "rows.jsonl") -> Path:
    file = tmp_path / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("[" + ",".join(lines) + "]" if name.endswith(".json") else "\n".join(lines) + "\n")
    assert main(["import", "dataset", str(file), "--out", str(tmp_path / "out")]) == code
    return tmp_path / "out"


def test_rows_of_the_released_dataset_become_episodes_with_their_tools(tmp_path: Path) -> None:
    out = _import(tmp_path, [released(1), released(2)])
    episodes = list(iter_episodes(out))
    assert [e.task_id for e in episodes] == ["00000000-0001", "00000000-0002"]
    first = episodes[0]
    kinds = [(e.actor.value, e.kind.value) for e in first.events]
    assert kinds == [
        ("user", "say"), ("agent", "call"), ("world", "result"), ("agent", "say"), ("user", "say"), ("runner", "end"),
    ]  # fmt: skip
    call = first.events[1].call
    assert call is not None and call.arguments == {"flat_id": "F17"} and call.klass is ToolClass.READ
    assert first.events[4].text == "no, thanks." and first.end.detail == "stop token"
    assert all(row["accepted"] for row in read_verdicts(out).values())


def test_imported_conversations_are_read_by_fine_tuning(tmp_path: Path) -> None:
    from muarl_cli.pipeline.sft import texts_of

    out = _import(tmp_path, [released(1), APIGEN])
    texts = texts_of(list(iter_episodes(out)))
    assert any("get_flat" in text for text in texts) and any("show S9 is there" in text for text in texts)
    assert main(["sft", "--data", str(out), "--where", "accepted=true", "--dry-run"]) == 0


def test_rows_of_apigen_and_a_json_list_are_read_too(tmp_path: Path) -> None:
    out = _import(tmp_path, [APIGEN, APIGEN], name="rows.json")
    (one, _) = iter_episodes(out)
    assert [e.text for e in one.events if e.actor is Actor.USER] == ["a ticket for show S9 please"]
    assert len(list((out / "scenarios").iterdir())) == 1, "the same policy and tools are one scenario"


BAD: list[tuple[Any, str]] = [
    ("{", "Expecting"),
    ("[1]", "no object"),
    ({"id": "x"}, "neither"),
    ({"messages": "["}, "no JSON"),
    ({"messages": "[]"}, "no list"),
    ({"messages": [{"role": "wizard", "content": ""}]}, "unknown role"),
    ({"conversations": [{"from": "nobody", "value": ""}]}, "unknown speaker"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "nobody plays the user"),
    (released(9, tools=[{"description": "no name"}]), "no function definitions"),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{}]}]}, "names no tool"),
]


def test_each_bad_row_is_kept_with_its_reason_and_the_good_ones_are_imported(tmp_path: Path) -> None:
    out = _import(tmp_path, [released(1), *(row for row, _ in BAD), released(2)])
    assert len(list(iter_episodes(out))) == 2
    refused = [json.loads(line) for line in (out / "refused_rows.jsonl").read_text().splitlines()]
    assert len(refused) == len(BAD)
    for row, (_, why) in zip(refused, BAD, strict=True):
        assert why in row["why"], row


def test_a_file_without_a_readable_row_is_an_error(tmp_path: Path) -> None:
    _import(tmp_path, [{"id": 1}], code=65)


def test_an_imported_row_with_an_invented_value_is_not_accepted(tmp_path: Path) -> None:
    bad = released(1, {"role": "assistant", "content": "your case has the number 990017."})
    out = _import(tmp_path, [bad, released(2)])
    codes = sorted(tuple(row["codes"]) for row in read_verdicts(out).values())
    assert codes == [(), ("values/message",)]


def test_importing_twice_adds_nothing(tmp_path: Path) -> None:
    _import(tmp_path, [released(1)])
    out = _import(tmp_path, [released(1)])
    assert len(list(iter_episodes(out))) == 1


@pytest.mark.parametrize(
    "wrapped",
    [
        TOOLS,
        [{"type": "function", "function": tool} for tool in TOOLS],
        [{"type": "function", "function": TOOLS}],
        {"function": TOOLS},
        {"type": "function", "function": [{"type": "function", "function": tool} for tool in TOOLS]},
    ],
)
def test_the_tools_are_found_in_every_wrapper(wrapped: Any) -> None:
    assert [tool["name"] for tool in functions(wrapped)] == ["get_flat", "book_viewing"]


def test_answers_without_ids_belong_to_the_calls_in_order() -> None:
    calls = [{"function": {"name": "get_flat", "arguments": {"flat_id": str(n)}}} for n in range(2)]
    row = {
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "content": "first"},
            {"role": "tool", "content": "second"},
        ],
        "tools": TOOLS,
    }
    messages = read_row(row, 1).messages
    assert [m["tool_call_id"] for m in messages[2:]] == [c["id"] for c in messages[1]["tool_calls"]]


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    folder = tmp_path / "cold"
    episodes = [replace(e, rows=()) for name in ("retail", "library") for _, e in talks(name, "careful")[:6]]
    with EpisodeLog.open(folder) as log:
        log.append_many(episodes)
    write_verdicts(folder, {e.episode_id: {"accepted": True} for e in episodes})
    return folder


@pytest.mark.parametrize("form", ["openai", "sharegpt"])
def test_what_is_exported_comes_back_with_the_same_words_calls_and_answers(
    cold: Path, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "rows.jsonl"
    assert main(["export", "chat", str(cold), "--format", form, "--out", str(file)]) == 0
    assert main(["import", "dataset", str(file), "--out", str(tmp_path / "again")]) == 0
    before = {e.episode_id: e for e in iter_episodes(cold)}
    after = {e.task_id: e for e in iter_episodes(tmp_path / "again")}
    assert before.keys() == after.keys()
    for key, episode in before.items():
        ours, theirs = _content(episode.events), _content(after[key].events)
        if form == "sharegpt":  # begins with the user, ends with the agent
            ours = ours[1:]
            assert len(ours) - len(theirs) <= 2
            ours = ours[: len(theirs)]
        assert ours == theirs


def _content(events: Any) -> list[Any]:
    rows: list[Any] = []
    for event in events:
        if event.kind is not Kind.END and (event.text or event.call):
            call = event.call
            rows.append(
                (event.actor.value, event.text, call.name if call else "", dict(call.arguments or {}) if call else {})
            )
    return rows


def test_exported_conversations_take_turns_as_the_format_asks(cold: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert main(["export", "chat", str(cold), "--format", "sharegpt", "--out", str(file)]) == 0
    for line in file.read_text().splitlines():
        speakers = [turn["from"] for turn in json.loads(line)["conversations"]]
        assert len(speakers) % 2 == 0
        assert set(speakers[::2]) <= {"human", "observation"} and set(speakers[1::2]) <= {"gpt", "function_call"}


def test_rows_are_exported_into_a_folder_that_is_made_and_never_into_a_file(cold: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "rows.jsonl"
    assert main(["export", "chat", str(cold), "--out", str(file)]) == 0 and file.stat().st_size
    assert main(["export", "chat", str(cold), "--out", str(file / "rows.jsonl")]) == 64


def test_exported_rows_load_as_one_table(cold: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    for form in ("openai", "sharegpt"):
        file = tmp_path / f"{form}.jsonl"
        assert main(["export", "chat", str(cold), "--format", form, "--out", str(file)]) == 0
        table = datasets.load_dataset("json", data_files=str(file), cache_dir=str(tmp_path / "cache"))["train"]
        assert len(table) == 12
        assert all(json.loads(row["tools"]) for row in table)


def test_an_exported_row_renders_to_the_text_that_is_trained_on(cold: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `train` is not installed")
    from importlib.resources import files

    from transformers.utils.chat_template_utils import render_jinja_template

    from muarl_cli.training.chat_format import ChatFormat
    from muarl_cli.training.demonstrations import encode_episode
    from muarl_cli.training.tokenizer import make_tokenizer
    from muarl_cli.worlds.domain import builtin
    from muarl_cli.worlds.scenario import stage_of

    file = tmp_path / "rows.jsonl"
    assert main(["export", "chat", str(cold), "--out", str(file)]) == 0
    rows = {row["id"]: row for row in map(json.loads, file.read_text().splitlines())}
    template = (files("muarl_cli.templates") / "chat" / "qwen3_nonthinking.jinja").read_text("utf-8")
    texts = [event.text for e in iter_episodes(cold) for event in e.events] + builtin("retail").texts()
    tokenizer = make_tokenizer(texts, 600)
    chat = ChatFormat(tokenizer, "full")
    for episode in iter_episodes(cold):
        domain = builtin(episode.scenario.split(":")[1])
        ids = encode_episode(stage_of(domain, episode.seed), episode.events, chat)[0].ids
        row = rows[episode.episode_id]
        messages = [
            message | {"tool_calls": [_parsed(call) for call in message["tool_calls"]]}
            if "tool_calls" in message
            else message
            for message in row["messages"]
        ]
        (rendered,), _ = render_jinja_template([messages], tools=json.loads(row["tools"]), chat_template=template)
        assert rendered.startswith(tokenizer.decode(ids, skip_special_tokens=False).rstrip("\n"))


def _parsed(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"function": {"name": function["name"], "arguments": json.loads(function["arguments"])}}
