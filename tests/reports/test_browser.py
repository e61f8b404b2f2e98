"""The page in a real headless browser: it opens, obeys the keyboard, and nothing hostile ever runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from reports.browser import MISSING, Browser

from muarl_cli.reports.page import report_page
from muarl_cli.reports.run_view import RunView, load_runs

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
LEFT = "document.querySelector('#left h3')?.textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    profile = tmp_path_factory.mktemp("profile")
    with Browser(profile) as found:
        yield found
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="module")
def page(runs: list[RunView], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(runs), encoding="utf-8")
    return path


def ready(browser: Browser, path: Path, anchor: str = "") -> None:
    browser.open(Path("/dev/null"))
    browser.open(path, anchor)
    browser.until("document.documentElement.dataset.ready")
    browser.until(LEFT)


def test_the_page_opens_without_a_complaint_and_lists_every_episode(
    browser: Browser, page: Path, runs: list[RunView]
) -> None:
    ready(browser, page)
    episodes = sum(len(run.episodes) for run in runs)
    assert browser.run("return document.documentElement.dataset.ready") == str(episodes)
    assert browser.run("return document.querySelectorAll('#rows tbody tr').length") == min(50, episodes)
    assert browser.complaints() == []


def test_the_keyboard_walks_through_episodes_and_pages(browser: Browser, page: Path) -> None:
    ready(browser, page)
    at = "return Number(document.querySelector('tr[aria-selected=true]').dataset.at)"
    assert browser.run(at) == 0
    browser.press("j", "j", "k")
    assert browser.run(at) == 1
    browser.press("]")
    assert browser.run("return document.getElementById('page').textContent") == "page 2 of 2"
    browser.press("/")
    assert browser.run("return document.activeElement.name") == "text"
    browser.press("j")
    assert browser.run("return document.querySelector('input[name=text]').value") == "j", "typing is not a command"
    browser.press("\ue00c")
    assert browser.run("return document.activeElement.tagName") in ("BUTTON", "BODY")


def test_filters_leave_what_matches_and_show_the_badge_at_its_turn(
    browser: Browser, page: Path, runs: list[RunView]
) -> None:
    ready(browser, page)
    choose = (
        "const s = document.querySelector('select[name=' + arguments[0] + ']'); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change')); return document.getElementById('count').textContent"
    )
    broken = [key for key, judged in runs[1].judged.items() if judged.broken]
    text = browser.run(choose, "rule", "confirm_before_write")
    assert text.startswith(f"{len(broken)} of ")
    corrupt = [key for key in broken if runs[1].judged[key].corrupt]
    assert browser.run(choose, "class", "corrupt").startswith(f"{len(corrupt)} of ")
    browser.run("document.querySelector('#rows tbody button').click()")
    browser.until("document.querySelector('#left li.broken .badge.fail')")
    badge = "return document.querySelector('#left li.broken .badge.fail').textContent"
    assert browser.run(badge) == "policy · confirm_before_write: fail – never asked"
    assert browser.run("return document.querySelectorAll('#left li.broken table.diff').length") >= 1


def test_two_rollouts_of_a_task_stand_side_by_side(browser: Browser, page: Path) -> None:
    ready(browser, page)
    first = browser.run(f"return {LEFT}")
    browser.press("s")
    other = browser.until("document.querySelector('#right h3')?.textContent")
    assert other.split(" · ")[0] == first.split(" · ")[0] and other != first
    assert browser.run("return document.getElementById('right').hidden") is False


def test_a_link_to_an_episode_opens_it(browser: Browser, page: Path, runs: list[RunView]) -> None:
    wanted = runs[1].own[3]
    ready(browser, page, f"#hasty/{wanted.episode_id}")
    assert browser.run(f"return {LEFT}").startswith(f"{wanted.task_id} · hasty")


def test_nothing_hostile_runs_is_fetched_or_hidden(browser: Browser, folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(report_page(load_runs([folders["hostile"]])), encoding="utf-8")
    ready(browser, path)
    count = browser.run("return document.querySelectorAll('#rows tbody tr').length")
    assert count == 14
    for _ in range(count):
        browser.press("j", "t", "t")
    browser.until("document.querySelectorAll('#left ol.talk li').length > 4")
    assert browser.run("return window.pwned") is None
    assert browser.complaints() == []
    foreign = "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith('data:'))"
    assert browser.run(foreign) == []
    tags = "return [...document.querySelectorAll('img,iframe,object,embed,a')].map((e) => e.getAttribute('href'))"
    assert all(href.startswith("#") for href in browser.run(tags))
    assert "⟨U+202E⟩" in browser.run("return document.body.textContent")


def test_tokens_show_what_was_trained(browser: Browser, folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "tokens.html"
    path.write_text(report_page(load_runs([folders["hostile"]])), encoding="utf-8")
    ready(browser, path)
    browser.press("t")
    browser.until("document.querySelectorAll('.tokens span').length == 3")
    owners = browser.run("return [...document.querySelectorAll('.tokens span')].map((e) => e.className)")
    assert [name.split()[0] for name in owners] == ["o0", "o3", "o3"]
    assert "2 sampled by the agent" in browser.run("return document.getElementById('left').textContent")


def test_dark_mode_and_print_change_the_page(browser: Browser, page: Path) -> None:
    ready(browser, page)
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(ground)
    browser.devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    assert browser.run(ground) != light
    browser.devtools("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert browser.run("return getComputedStyle(document.getElementById('episodes')).display") == "none"
    wide = "return Math.max(...[...document.querySelectorAll('main *')].map((e) => e.getBoundingClientRect().right))"
    room = "return document.body.getBoundingClientRect().right"
    assert browser.run(wide) <= browser.run(room) + 1, "nothing runs out of 80 columns"
    browser.devtools("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_the_summary_is_readable_without_scripts(browser: Browser, page: Path) -> None:
    browser.devtools("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(Path("/dev/null"))
        browser.open(page)
        text = browser.devtools("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        body = browser.devtools("DOM.getOuterHTML", {"nodeId": text})["outerHTML"]
        assert "confirm_before_write" in body and '<div id="viewer" hidden' in body
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", {"value": False})
