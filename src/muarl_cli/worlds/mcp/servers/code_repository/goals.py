"""Eight repositories with unfinished work, and the goals of those who work in them.

Invariant: the files that are changed in the working tree are the same on every branch, so that switching never loses
work; the two goals of a task never concern the same work or both move the checked-out branch.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORIES = ("atlas", "beacon", "cobalt", "dynamo", "ember", "falcon", "granite", "harbor")
PEOPLE = ("nora", "paul", "rosa", "finn", "lucy", "hugo", "vera", "carl")
FILES = (
    "api.py", "cache.py", "client.py", "config.py", "errors.py", "index.py", "loader.py", "parser.py", "queue.py",
    "router.py", "server.py", "tasks.py",
)  # fmt: skip
NEW_FILES = ("notes.md", "draft.md", "todo.md", "bench.py", "demo.py")
BRANCHES = ("release-1", "release-2", "feature/login", "feature/search", "fix/memory", "fix/typo")
NEW_BRANCHES = tuple(
    f"{kind}/{what}"
    for kind in ("topic", "hotfix", "spike")
    for what in ("tokens", "colours", "startup", "uploads", "links")
)
MESSAGES = tuple(
    f"{verb} {what}"
    for verb in ("repair", "speed up", "simplify", "document", "rework")
    for what in ("the start", "error texts", "old imports", "the timeouts", "retries", "the examples")
)
TREE = frozenset({"commit_file", "commit_pair", "commit_all", "commit_staged", "commit_aside", "stage", "unstage"})
HEAD = frozenset({"commit_aside", "start", "switch"})

Tables = dict[str, dict[str, dict[str, Any]]]
Drawn = tuple[dict[str, Any], str, dict[str, str]]


def state(seed: int) -> Tables:
    """What is in each repository: files with their content, branches, and the work that was not committed."""
    rng = random.Random(f"code_repository/{seed}")
    found: Tables = {"repositories": {}}
    for name in REPOSITORIES:
        files = rng.sample(FILES, 7)
        branches = rng.sample(BRANCHES, 4)
        versions = rng.sample(range(100, 1000), 5)
        found["repositories"][name] = {
            "files": {file: f"# {file} of {name}\nlimit = {rng.randrange(10, 100)}\n" for file in files},
            "changed": files[:3],
            "staged": files[3] if rng.random() < 0.5 else "",
            "new": rng.sample(NEW_FILES, 2),
            "branches": {
                branch: {"version": ".".join(str(version)), "author": rng.choice(PEOPLE)}
                for branch, version in zip(("main", *branches), versions, strict=True)
            },
        }
    return found


def write(tables: Tables, place: Path) -> None:
    """The repositories themselves, packed, so that copying one is copying few files."""
    for name, record in tables["repositories"].items():
        _repository(place / name, record)


def _repository(folder: Path, record: Mapping[str, Any]) -> None:
    folder.mkdir()
    branches: Mapping[str, Mapping[str, str]] = record["branches"]
    _git(folder, "desk", "init", "--quiet", "--template=", "--initial-branch=main")
    for file, text in record["files"].items():
        (folder / file).write_text(text, encoding="utf-8")
    for branch, about in branches.items():
        if branch != "main":
            _git(folder, about["author"], "checkout", "--quiet", "-b", branch, "main")
        _commit(folder, about, "first version" if branch == "main" else f"begin {branch}")
    _git(folder, "desk", "checkout", "--quiet", "main")
    for file in record["changed"] + ([record["staged"]] if record["staged"] else []):
        path = folder / file
        path.write_text(path.read_text(encoding="utf-8") + "retries = 3\n", encoding="utf-8")
    for file in record["new"]:
        (folder / file).write_text(f"{file}, not finished\n", encoding="utf-8")
    if record["staged"]:
        _git(folder, "desk", "add", record["staged"])
    _git(folder, "desk", "-c", "gc.writeCommitGraph=false", "gc", "--quiet", "--prune=now")
    _git(folder, "desk", "status")  # the index then knows the files as they are, and is not written by the first look
    for left in ("logs", "hooks", "info", "objects/info"):
        shutil.rmtree(folder / ".git" / left, ignore_errors=True)


def _commit(folder: Path, about: Mapping[str, str], message: str) -> None:
    (folder / "VERSION").write_text(about["version"] + "\n", encoding="utf-8")
    _git(folder, about["author"], "add", ".")
    _git(folder, about["author"], "commit", "--quiet", "--message", message)


def _git(folder: Path, person: str, *arguments: str) -> None:
    who = {"NAME": person, "EMAIL": f"{person}@code.net", "DATE": "1767258000 +0000"}
    environment = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )


def subjects(tables: Tables) -> list[str]:
    """What a task can be about: the repositories."""
    return list(tables["repositories"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent in this repository: (slots, why it must be refused or "", hints)."""
    before = used.get("intent", "")
    if (intent in TREE and before in TREE) or (intent in HEAD and before in HEAD):
        return None
    record = tables["repositories"][subject]
    slots = {"repo": subject, "message": other_value(rng, "message", used.get("message"))}
    work = [*record["changed"], *record["new"]]
    clean = [f for f in record["files"] if f not in work and f != record["staged"]]
    taken, free = list(record["branches"]), [b for b in NEW_BRANCHES if b != used.get("branch")]
    possible = wish == "possible"
    if intent in ("commit_file", "stage"):
        if intent == "commit_file" and record["staged"]:
            return None  # what is staged already would be committed as well, and nobody asked for that
        file = rng.choice(work if possible else clean)
        return slots | {"file": file}, _unless(possible, "the file is not changed"), {}
    if intent in ("commit_staged", "unstage"):
        if bool(record["staged"]) != possible:
            return None
        return slots, _unless(possible, "nothing is staged"), {}
    if intent in ("branch", "start"):
        base = rng.choice(taken)
        return (
            slots | {"branch": rng.choice(free if possible else taken[1:]), "base": base},
            _unless(possible, "the name is taken"),
            {},
        )
    if intent in ("switch", "backup"):
        others = [b for b in taken[1:] if b != used.get("branch")]
        return (
            slots | {"branch": rng.choice(others if possible else free)},
            _unless(possible, "there is no such branch"),
            {},
        )
    if not possible:
        return None
    if intent in ("commit_pair", "commit_aside"):
        if record["staged"]:
            return None
        first, second = rng.sample(work, 2)
        return slots | {"file": first, "other": second, "branch": rng.choice(free)}, "", {}
    if intent in ("version", "author"):
        branch = rng.choice([b for b in taken[1:] if b != used.get("branch")])
        return slots | {"branch": branch, "answer": record["branches"][branch][intent]}, "", {}
    return slots, "", {}


def _unless(possible: bool, why: str) -> str:
    return "" if possible else why


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value`, for a change of mind."""
    options = {"message": MESSAGES, "branch": NEW_BRANCHES}[slot]
    return rng.choice([option for option in options if option != value])
