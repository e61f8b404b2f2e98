"""Language: told where it can be told, and nothing is held against short or mixed texts."""

from __future__ import annotations

import pytest

from muarl_cli.verification.speech import language_of, script_of


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("would you like me to go ahead with this for you?", "en"),
        ("möchten sie, dass ich das für sie so mache, oder ist es nicht eilig?", "de"),
        ("voulez-vous que je le fasse pour vous avec une carte ?", "fr"),
        ("¿quiere usted que lo haga para el lunes con su tarjeta?", "es"),
        ("请问您还有其他需要帮助的事情吗", "cjk"),
        ("хотите ли вы, чтобы я это сделал", "cyrillic"),
        ("ok", ""),
        ("velvet harvest, paperback", ""),
        ("4821", ""),
    ],
)
def test_a_language_is_told_by_its_script_and_its_little_words(text: str, code: str) -> None:
    assert language_of(text) == code


def test_a_few_foreign_letters_do_not_change_the_script() -> None:
    assert script_of("the dish is called 炒饭, i think") == "LATIN"
