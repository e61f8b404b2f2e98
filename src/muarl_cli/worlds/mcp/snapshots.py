"""The state of a server read from its files: rows of a database, refs and files of repositories, cells, documents.

A snapshot is `tables[entity][id] = record`, as in the built-in worlds. Invariant: it is read from what is on disk and
never asked of the server, so that a server cannot vouch for itself; what does not matter (file times, the order of
rows, object ids of git) is left out.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from muarl_cli.conversation.events import Write
from muarl_cli.worlds.store import Base, Record

Tables = dict[str, dict[str, Record]]


def snapshot(options: Mapping[str, Any], folder: Path) -> Tables:
    """The state in `folder`, as the `snapshot` section of a server file says."""
    return _KINDS[options["kind"]](options, folder)


def fingerprint(tables: Tables) -> str:
    """Equal tables have equal fingerprints; made as those of the built-in worlds."""
    return f"{Base(tables).total:064x}"


def changes(before: Tables, after: Tables, options: Mapping[str, Any]) -> tuple[Write, ...]:
    """What differs, with its owner: `owner` in the options names, by entity, the field that says whose a record is, or
    "id" where the record is its own owner."""
    owners = options.get("owner", {})
    found = []
    for entity in sorted({*before, *after}):
        old, new = before.get(entity, {}), after.get(entity, {})
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                record = new.get(key) or old[key]
                field = owners.get(entity, "")
                owner = key if field == "id" else str(record.get(field, "")) if field else ""
                found.append(Write(entity, key, owner))
    return tuple(found)


def tree_hash(folder: Path) -> str:
    """SHA-256 over the names, kinds and bytes of everything in a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            total.update(f"link {name} {path.readlink()}\0".encode())
        elif path.is_dir():
            total.update(f"dir {name}\0".encode())
        else:
            body = path.read_bytes()
            total.update(f"file {name} {len(body)}\0".encode() + body)
    return total.hexdigest()


def _sqlite(options: Mapping[str, Any], folder: Path) -> Tables:
    """Each table's rows by primary key; rows of a table without one by their content, counted."""
    connection = sqlite3.connect(f"file:{folder / options['file']}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: _rows(connection, name) for name in names if not name.startswith("sqlite_")}
    finally:
        connection.close()


def _rows(connection: sqlite3.Connection, name: str) -> dict[str, Record]:
    quoted = '"' + name.replace('"', '""') + '"'
    keys = [row["name"] for row in connection.execute(f"PRAGMA table_info({quoted})") if row["pk"]]
    rows: dict[str, Record] = {}
    for row in connection.execute(f"SELECT * FROM {quoted}"):
        record = {field: value.hex() if isinstance(value, bytes) else value for field, value in dict(row).items()}
        key = "/".join(str(record[field]) for field in keys)
        if not keys:
            content = "/".join(str(value) for value in record.values())
            copies = sum(1 for known in rows if known.rpartition("#")[0] == content)
            key = f"{content}#{copies}"
        rows[key] = record
    return rows


_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0"}
"""nobody's own settings, and reading changes nothing (`git status` would write the index)"""


def _git(options: Mapping[str, Any], folder: Path) -> Tables:
    """Of each repository below `folder`: its branches, what is checked out, what is changed and staged.

    A branch is its tree and the messages of its commits, oldest first; who wrote them and when does not count.
    """
    tables: Tables = {"repository": {}, "branch": {}}
    for place in sorted(path.parent for path in folder.glob("*/.git")):
        state, branches = _repository(place)
        tables["repository"][place.name] = {"repository": place.name, **state}
        for name, commits in branches.items():
            tables["branch"][f"{place.name}:{name}"] = {"repository": place.name, **commits}
    return tables


_Repository = tuple[dict[str, Any], dict[str, dict[str, Any]]]
_KNOWN_REPOSITORIES: dict[str, _Repository] = {}
"""by the hash of all their files: most repositories of a directory are untouched, and asking git takes processes"""
_MOST_KNOWN = 4096


def _repository(place: Path) -> _Repository:
    key = tree_hash(place)
    if key not in _KNOWN_REPOSITORIES:
        if len(_KNOWN_REPOSITORIES) >= _MOST_KNOWN:
            _KNOWN_REPOSITORIES.clear()
        head = (place / ".git" / "HEAD").read_text(encoding="utf-8").strip().removeprefix("ref: refs/heads/")
        status = _run_git(place, "status", "--porcelain", "--untracked-files=all").splitlines()
        refs = _run_git(place, "for-each-ref", "--format=%(objectname) %(refname:short)", "refs/heads")
        commits = _commits(place)
        branches = {}
        for line in refs.splitlines():
            commit, name = line.split(" ", 1)
            branches[name] = {"tree": commits[commit].tree, "messages": _messages(commits, commit)}
        _KNOWN_REPOSITORIES[key] = ({"head": head, "status": status}, branches)
    return _KNOWN_REPOSITORIES[key]


class _Commit(NamedTuple):
    parents: tuple[str, ...]
    tree: str
    message: str


def _commits(place: Path) -> dict[str, _Commit]:
    """All commits of all branches by their id."""
    found = {}
    for row in _run_git(place, "log", "--branches", "--format=%H%x01%P%x01%T%x01%B%x00").split("\0"):
        if row.strip():
            name, parents, tree, message = row.strip("\n").split("\x01")
            found[name] = _Commit(tuple(parents.split()), tree, message.strip())
    return found


def _messages(commits: Mapping[str, _Commit], commit: str) -> list[str]:
    """The messages that lead to a commit along first parents, oldest first."""
    texts = []
    while commit:
        texts.append(commits[commit].message)
        commit = next(iter(commits[commit].parents), "")
    return texts[::-1]


def _run_git(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(place), *arguments],
        env={**os.environ, **_GIT},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _xlsx(options: Mapping[str, Any], folder: Path) -> Tables:
    """Each sheet of each workbook: its cells by address, formulas as text; and the order of the sheets."""
    tables: Tables = {"workbook": {}, "sheet": {}}
    for path in sorted(folder.rglob("*.xlsx")):
        name = path.relative_to(folder).as_posix()
        sheets = _workbook(path.read_bytes())
        tables["workbook"][name] = {"workbook": name, "sheets": list(sheets)}
        for title, cells in sheets.items():
            tables["sheet"][f"{name}:{title}"] = {"workbook": name, "cells": cells}
    return tables


@lru_cache(maxsize=256)
def _workbook(body: bytes) -> dict[str, dict[str, Any]]:
    """Read once for the same bytes; nobody changes what is returned."""
    from openpyxl import load_workbook

    book = load_workbook(BytesIO(body))
    found: dict[str, dict[str, Any]] = {}
    for sheet in book.worksheets:
        cells = {cell.coordinate: cell.value for row in sheet.iter_rows() for cell in row if cell.value is not None}
        found[sheet.title] = {
            place: value if isinstance(value, (str, int, float, bool)) else str(value) for place, value in cells.items()
        }
    return found


def _files(options: Mapping[str, Any], folder: Path) -> Tables:
    """Every file below `folder` by its path: its text, or the hash of its bytes. `ignore` lists names left out."""
    ignored = set(options.get("ignore", ()))
    found: dict[str, Record] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ignored:
            name = path.relative_to(folder).as_posix()
            body = path.read_bytes()
            try:
                content = {"text": body.decode("utf-8")}
            except UnicodeDecodeError:
                content = {"sha256": hashlib.sha256(body).hexdigest()}
            found[name] = {"top": name.split("/")[0], **content}
    return {"file": found}


_KINDS: Mapping[str, Callable[[Mapping[str, Any], Path], Tables]] = {
    "sqlite": _sqlite,
    "git": _git,
    "xlsx": _xlsx,
    "files": _files,
}
