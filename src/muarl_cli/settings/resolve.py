"""From pages, profile, file, environment and flags to one typed settings object, with the origin of every value.

Invariant: flag > environment > file > profile > stage page, value by value; an unknown key is an error that names the
nearest; and what depends on other values (which user, which address) is worked out here, once, and shown as such.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.settings.bases import POLICY, Stage, StageSettings
from muarl_cli.settings.grammar import AUTO, BENCHMARKS, WRITTEN_USERS, nearest, split_override, unknown_key
from muarl_cli.settings.models import FREE_KEYS, MODELS
from muarl_cli.settings.pages import STAGE_NAMES, flatten, groups, leaves, page, profile, unflatten
from muarl_cli.settings.yamlio import dump, load_file, load_text, refuse_secrets

ENV_PREFIX = "MUARL_"
PERSONAL = 2
"""rank from which on a value is a person's own: file, environment, flag; below it are profile and page"""
OFFICIAL_LIMITS = ("limits.max_turns", "limits.max_identical_calls", "limits.max_failed_calls")
OFFICIALLY_LIMITED = {"tau1", "tau2"}
"""sources of tasks whose own runners have limits in place of these"""


@dataclass(frozen=True)
class Resolved:
    """The settings of one stage, and for each dotted key where its value came from."""

    stage: Stage
    settings: StageSettings
    origins: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """Nested plain values, JSON and YAML safe, in the order of the page."""
        return unflatten(self.flat())

    def flat(self) -> dict[str, Any]:
        """Dotted key to plain value, in the order of the page."""
        flat = flatten(self.settings.model_dump(mode="json"), type(self.settings))
        return {key: flat[key] for key in self.origins}  # the page is the first layer, so its order is theirs

    def yaml(self) -> str:
        """A file that `--config` reads back to the same settings."""
        return dump(self.plain())

    def hash(self, length: int = 8) -> str:
        """Hex digest of what decides the result; `FREE_KEYS` are left out."""
        kept = {key: value for key, value in self.flat().items() if key not in FREE_KEYS}
        return digest([self.stage.value, kept], length)

    def with_value(self, key: str, value: Any, origin: str) -> Resolved:
        """The same with one value replaced, checked like any other. Raises `MuarlError` (config)."""
        flat = {**self.flat(), key: value}
        origins = {**self.origins, key: origin}
        return replace(self, settings=_validated(self.stage, flat, origins), origins=origins)


@dataclass
class _Layers:
    """The values so far; `put` lets the later layer win, and remembers who it was and how strong."""

    stage: Stage
    known: tuple[str, ...]
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)

    def put(self, values: Mapping[str, Any], origin: str, rank: int) -> None:
        for key, value in values.items():
            if key not in self.known:
                raise _unknown(key, self, origin)
            if value is None:
                raise MuarlError(f"{key} has no value", where=origin, code=ExitCode.CONFIG)
            self.values[key], self.origins[key], self.ranks[key] = value, origin, rank

    def derive(self, key: str, value: Any, origin: str) -> None:
        """A value that follows from others; it keeps its rank."""
        self.values[key], self.origins[key] = value, origin

    def outranks(self, key: str, other: str) -> bool:
        return self.ranks[key] > self.ranks[other]


def resolve(
    stage: Stage,
    *,
    profile_name: str = "",
    config: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """Resolve the settings of `stage`.

    `overrides` are `dotted.key=value` texts (values are YAML), `flags` maps a dotted key to (flag as typed, value);
    both have the rank of a flag, and the same key given by both is an error. Raises `MuarlError` (config, usage,
    missing input).
    """
    environ = os.environ if environ is None else environ
    model = MODELS[stage]
    layers = _Layers(stage, tuple(leaves(model)))
    layers.put(flatten(page(stage), model), "stage page", 0)
    if profile_name:
        layers.put(profile(profile_name).get(stage.value, {}), f"profile {profile_name}", 1)
    if config:
        layers.put(_from_file(config, stage), f"file {config}", 2)
    for key, (name, value) in _from_environment(stage, environ).items():
        layers.put({key: value}, f"env {name}", 3)
    given = dict(flags or {})
    for text in overrides:
        key, raw = split_override(text)
        refuse_secrets(raw, f"{key}=...")
        if key in given:
            raise MuarlError(f"{key} is given twice", where=f"{given[key][0]} and {key}=...", next_step="give it once")
        given[key] = (f"{key}=...", load_text(raw, f"{key}=...") if raw.strip() else "")
    for key, (name, value) in given.items():
        refuse_secrets(str(value), name)
        layers.put({key: value}, f"flag {name}", 4)
    _imply(layers)
    _addresses(layers, environ)
    return Resolved(stage, _validated(stage, layers.values, layers.origins), layers.origins)


def _from_file(path: Path, stage: Stage) -> dict[str, Any]:
    """A settings file is either the settings of one stage, or has a section a stage like a profile."""
    content = load_file(path)
    if content and set(content) <= set(STAGE_NAMES):
        content = content.get(stage.value) or {}
    return flatten(content, MODELS[stage])


def _from_environment(stage: Stage, environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """`MUARL_ROLLOUT__USER__MODEL=x` is `user.model: x` of `rollout`; key to (variable, value)."""
    found: dict[str, tuple[str, Any]] = {}
    for name in sorted(environ):
        head, mark, rest = name.partition("__")
        if not name.startswith(ENV_PREFIX) or not mark:
            continue
        section = head.removeprefix(ENV_PREFIX).lower()
        if section not in STAGE_NAMES:
            raise MuarlError(
                f"unknown stage {section!r}",
                where=f"environment variable {name}",
                next_step=nearest(section, STAGE_NAMES),
                code=ExitCode.CONFIG,
            )
        if section == stage.value:
            refuse_secrets(environ[name], f"environment variable {name}")
            key = rest.lower().replace("__", ".")
            found[key] = (
                name,
                load_text(environ[name], f"environment variable {name}") if environ[name].strip() else "",
            )
    return found


def _imply(layers: _Layers) -> None:
    """What one choice says about another: a named user model is an llm user, given tasks are no benchmark set."""
    values = layers.values
    if "user.backend" in values:
        if values["user.model"] and layers.outranks("user.model", "user.backend"):
            layers.derive("user.backend", "llm", f"implied by user.model ({layers.origins['user.model']})")
        if values["user.backend"] == AUTO:
            layers.derive("user.backend", *_auto_user(values))
        _needs_model(layers)
    if "teacher.agent" in values and values["teacher.model"] and layers.outranks("teacher.agent", "teacher.model"):
        layers.derive("teacher.model", "", f"implied by teacher.agent ({layers.origins['teacher.agent']})")
    if values.get("bench"):
        if layers.ranks["bench"] == layers.ranks["tasks"] == 4:
            raise MuarlError(
                "a benchmark's set and task sets are both given", next_step="give --bench or --tasks, not both"
            )
        if layers.outranks("tasks", "bench"):
            layers.derive("bench", "", f"implied by tasks ({layers.origins['tasks']})")
    if "official_limits" in values:
        _yield_limits(layers)


def _yield_limits(layers: _Layers) -> None:
    """A limit that a person names for one of the TAU-benches counts, and the conversation is no official one then."""
    named = [key for key in OFFICIAL_LIMITS if layers.ranks[key] >= PERSONAL]
    if not named or not layers.values["official_limits"] or not _sources(layers.values) & OFFICIALLY_LIMITED:
        return
    first = max(named, key=lambda key: layers.ranks[key])
    if layers.ranks["official_limits"] >= layers.ranks[first]:
        if layers.ranks[first] < 4:  # a file that holds all settings says both
            return
        raise MuarlError(
            f"{first} would have no effect",
            where=layers.origins[first],
            why=f"official_limits ({layers.origins['official_limits']}) takes the benchmark's own limits in its place",
            next_step="give one of the two",
            code=ExitCode.CONFIG,
        )
    layers.derive("official_limits", False, f"implied by {first} ({layers.origins[first]})")


def _sources(values: Mapping[str, Any]) -> set[str]:
    """Where the tasks come from: builtin, tau2, ..."""
    tasks = values.get("tasks") or []
    texts = tasks.split(",") if isinstance(tasks, str) else [str(task) for task in tasks]
    return {str(values["bench"])} if values.get("bench") else {text.strip().split(":")[0] for text in texts}


def _auto_user(values: Mapping[str, Any]) -> tuple[str, str]:
    """A policy on a benchmark talks to a model, as the benchmark has it; everything else runs offline."""
    official = _sources(values) & set(BENCHMARKS) - set(WRITTEN_USERS)
    if official and POLICY in str(values.get("agent", POLICY)):
        return "llm", "auto: a policy on a benchmark"
    return "scripted", "auto: nothing asks for a model"


def _needs_model(layers: _Layers) -> None:
    backend = str(layers.values["user.backend"])
    for kind, wanted in (("hf", "the folder of a model"), ("replay", "an episode log")):
        named = layers.ranks["user.model"] > 0 or (kind == "hf" and layers.values["user.local"])
        if kind in backend.replace("=", ",").split(",") and not named:
            raise MuarlError(
                f"user.backend={kind} needs {wanted}",
                where=layers.origins["user.backend"],
                next_step="name it with --user-model PATH --user " + backend,
                code=ExitCode.CONFIG,
            )


def _addresses(layers: _Layers, environ: Mapping[str, str]) -> None:
    """The SDK's environment variable is the address of whatever is served and has no address of its own."""
    address = environ.get("OPENAI_BASE_URL", "")
    if not address:
        return
    refuse_secrets(address, "environment variable OPENAI_BASE_URL")
    values = layers.values
    served = {
        "user.base_url": "llm" in str(values.get("user.backend", "")),
        "teacher.base_url": bool(values.get("teacher.model")),
        "base_url": bool(values.get("model")) and not Path(str(values["model"])).is_dir(),
    }
    for key, wanted in served.items():
        if wanted and values.get(key) == "":
            layers.derive(key, address, "env OPENAI_BASE_URL")


def _validated(stage: Stage, flat: Mapping[str, Any], origins: Mapping[str, str]) -> StageSettings:
    try:
        return MODELS[stage].model_validate(unflatten(flat))
    except ValidationError as error:
        raise _explained(stage, error, origins) from None


def _explained(stage: Stage, error: ValidationError, origins: Mapping[str, str]) -> MuarlError:
    """The first problem in the words of a person: key, value, bound, and who gave it."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = [str(part) for part in first["loc"]]
    key = next((".".join(path[:n]) for n in range(len(path), 0, -1) if ".".join(path[:n]) in origins), ".".join(path))
    message = first["msg"].removeprefix("Value error, ")
    shown = (
        "" if not path else f"{key} = {str(first.get('input'))[:80]}: " if first["type"] != "missing" else f"{key}: "
    )
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return MuarlError(
        f"{stage.value}: {shown}{message}{more}",
        where=origins.get(key, ""),
        next_step=f"see `muarl config show {stage.command}` and `muarl config schema {stage.command}`",
        code=ExitCode.CONFIG,
    )


def _unknown(key: str, layers: _Layers, origin: str) -> MuarlError:
    if key in set(groups(MODELS[layers.stage])):
        inner = ", ".join(name for name in layers.known if name.startswith(f"{key}."))
        return MuarlError(
            f"{key!r} is a group of settings", where=origin, next_step=f"set one of {inner}", code=ExitCode.CONFIG
        )
    return unknown_key(key, layers.known, origin)
