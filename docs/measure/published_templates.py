"""Which published chat templates are trained with as they are, and why the others are not: prints one JSON document.

    python docs/measure/published_templates.py FOLDER       (or $MUARL_TEMPLATES)

FOLDER holds `*.jinja` files, such as `trl/chat_templates` of an installed TRL, which keeps the templates of many model
families with the names of their families. Each is opened as a stage opens it (`chat=own`), with a small tokenizer that
has the control tokens that the template names. `forged` counts the control tokens that text of users, tools, greetings
and policies becomes in those that pass, when all of the tokenizer's control tokens are said at once. `no_tools` are
templates that render no tool call or no result at all, for models that were never shown any.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.templates import CONTROLS, forged, template_tokenizer

from muarl_cli.errors import MuarlError
from muarl_cli.training.template_format import open_format

_CONTROL = re.compile(
    r"<\|[^|<>\s'\"]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<\|[a-z_]{1,30}>|<[a-z_]{1,30}\|>|\[/?(?:INST|gMASK)\]|"
    r"</?(?:think|tool_call|tool_response|start_of_turn|end_of_turn|end_of_utterance|s|bos|eos|sop)>"
)
_FAULTS = {
    "no tool calls or no results": r"calls out|System role not supported|roles must alternate|TURN_TOKEN\|><\|END_OF",
    "calls in another syntax": r"neither JSON, nor text|ends otherwise than one of words",
    "one call a turn": r"single tool-calls",
    "rewrites what was sampled": r"is rewritten|gives another text",
    "a turn has no end token": r"ordinary text",
    "messages of another form": r"has no attribute|are not in what was added",
}


def kind_of(why: str) -> str:
    return next((kind for kind, words in _FAULTS.items() if re.search(words, why)), "other")


def tokenizer_for(template: str) -> Any:
    """The tests' small tokenizer with the control tokens that a template names, `<s>` and `</s>`."""
    tokenizer = template_tokenizer(template)
    named = [*CONTROLS, "<s>", *sorted(set(_CONTROL.findall(template)))]
    tokenizer.add_special_tokens({"additional_special_tokens": named, "bos_token": "<s>"})
    if "eos_token" in template:
        tokenizer.eos_token = "</s>"
    return tokenizer


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MUARL_TEMPLATES", ""))
    files = sorted(folder.glob("*.jinja")) if str(folder) != "." else []
    if not files:
        sys.exit("name a folder of *.jinja files, such as trl/chat_templates of an installed TRL")
    passed: dict[str, Any] = {}
    refused: dict[str, dict[str, str]] = defaultdict(dict)
    count = 0
    for file in files:
        template = file.read_text(encoding="utf-8")
        try:
            chat: Any = open_format(tokenizer_for(template), "full", "own")
        except MuarlError as error:
            probe = error.what.rpartition(" the probe ")[2].strip("'")
            refused[kind_of(error.why)][file.stem] = f"{probe}: {error.why}"
            continue
        frames = chat.frames
        style = type(frames.syntax).__name__
        passed[file.stem] = {"calls": style, "thinks": frames.thought is not None, "forgets": frames.forgets}
        count += forged(chat)
    print(
        json.dumps(
            {
                "templates": len(files),
                "passed": len(passed),
                "refused": len(files) - len(passed),
                "forged": count,
                "unexplained": len(refused.get("other", {})),
                "by_reason": {kind: len(names) for kind, names in sorted(refused.items())},
                "opened": passed,
                "reasons": refused,
            },
            indent=2,
            ensure_ascii=True,
        )
    )


if __name__ == "__main__":
    main()
