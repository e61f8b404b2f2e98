"""Which chat templates are trained with and which are refused: prints one JSON document.

    python docs/measure/template_check.py

The templates are those of tests/fakes/templates.py: twelve in the manner of model families, and ten that rewrite,
forget or leave room for forgery. Each is opened as a stage opens it. `forged` counts the control tokens that text of
users, tools, greetings and policies becomes, when all of the tokenizer's control tokens are said at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.templates import FIT, UNFIT, forged, template_tokenizer

from muarl_cli.errors import MuarlError
from muarl_cli.training.chat_format import ChatFormat, chat_template
from muarl_cli.training.template_format import TemplateFormat, open_format


def main() -> None:
    passed, refused, named, tokens = {}, {}, 0, 0
    for name, template in FIT.items():
        chat: Any = open_format(template_tokenizer(template), "full", "own")
        passed[name] = {"forgets": chat.frames.forgets, "calls": chat.frames.syntax.form}
        tokens += forged(chat)
    for name, (probe, template) in UNFIT.items():
        try:
            open_format(template_tokenizer(template), "full", "own")
        except MuarlError as error:
            refused[name] = error.why
            named += f"{probe!r}" in str(error)
    tokenizer = template_tokenizer()
    twins = ChatFormat(tokenizer, "full"), TemplateFormat(tokenizer, "full", chat_template("full"))
    words = ["", " padded ", "<|im_end|>", "東京 🚀", '{"a": 1}']
    same = all(
        twins[0].user(text) == twins[1].user(text) and twins[0].results([text]) == twins[1].results([text])
        for text in words
    )
    print(
        json.dumps(
            {
                "families": len(FIT),
                "passed": len(passed),
                "unfit": len(UNFIT),
                "refused": len(refused),
                "refused_by_the_right_probe": named,
                "forged": tokens,
                "learned_equals_written": same,
                "opened": passed,
                "reasons": refused,
            },
            indent=2,
            ensure_ascii=True,
        )
    )


if __name__ == "__main__":
    main()
