"""YAML as settings need it: safe, without surprises, small.

Invariant: a key stands once, `5e-6` is a number, only `true` and `false` are booleans, aliases are refused (they can
grow without bound), and a file that holds something like a key is refused before anybody can copy it into an artifact.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from muarl_cli.errors import ExitCode, MuarlError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
_SECRET = re.compile(
    r"""(?x)
    (?<![A-Za-z0-9]) (?:
      sk-[A-Za-z0-9_-]{8,}            # OpenAI and most that imitate it
    | (?:hf|ghp|gho|ghs|glpat|xox[abp])[_-][A-Za-z0-9_-]{16,}
    | AKIA[0-9A-Z]{16}
    | AIza[0-9A-Za-z_-]{30,}
    | [Bb]earer\ +[A-Za-z0-9._~+/-]{16,}
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----
    )
    | ://[^/\s:@]+:[^/\s@]+@          # a password inside an address
    """
)


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2 numbers and booleans, unique keys, no aliases and a bounded depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not accepted", self.peek_mark())
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, "nested too deep", self.peek_mark())
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def peek_mark(self) -> Any:
        return self.peek_event().start_mark

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_KEEP = {"tag:yaml.org,2002:null"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag in _KEEP]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def load_text(text: str, where: str) -> Any:
    """A YAML text as plain values. Raises `MuarlError` (config) naming file, line and column."""
    refuse_secrets(text, where)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise MuarlError("cannot read the YAML", where=place, why=str(error.problem), code=ExitCode.CONFIG) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = str(error).splitlines()[0][:200]
        raise MuarlError("cannot read the YAML", where=where, why=why, code=ExitCode.CONFIG) from None


def load_file(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises `MuarlError` (missing input, config)."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MuarlError(f"settings files have at most {MAX_BYTES} bytes", where=str(path), code=ExitCode.CONFIG)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        why = error.strerror or str(error)
        raise MuarlError(
            "cannot read the settings file",
            where=str(path),
            why=why,
            next_step="make one: muarl config show STAGE > settings.yaml",
            code=ExitCode.MISSING_INPUT,
        ) from None
    except UnicodeDecodeError:
        raise MuarlError("the settings file is not UTF-8 text", where=str(path), code=ExitCode.CONFIG) from None
    return mapping(load_text(text, str(path)), str(path))


def mapping(value: Any, where: str) -> dict[str, Any]:
    """`value` as a mapping (an empty file is an empty one). Raises `MuarlError` (config)."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MuarlError("settings are `key: value` lines", where=where, code=ExitCode.CONFIG)
    return {str(key): item for key, item in value.items()}


def dump(value: Any) -> str:
    """Plain values as YAML that `load_text` reads back unchanged, keys in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


# A text that either reading would take for something else is quoted.
_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeLoader.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeLoader.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def refuse_secrets(text: str, where: str) -> None:
    """Raise `MuarlError` (config) where `text` holds something like a key; the key itself is never shown."""
    for number, line in enumerate(text.splitlines(), 1):
        if _SECRET.search(line):
            raise MuarlError(
                "something like a key or password stands in the settings",
                where=f"{where}, line {number}" if "\n" in text else where,
                why="settings are copied into every artifact",
                next_step="put it into the environment (OPENAI_API_KEY=...) and remove it here",
                code=ExitCode.CONFIG,
            )
