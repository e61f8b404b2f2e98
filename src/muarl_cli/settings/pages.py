"""The stage pages and profiles: where every default stands, read from the package's data.

Invariant: a page holds exactly the settings of its stage. A profile holds a section a stage and sets what it names;
with `extends: OTHER` it starts from another profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.grammar import nearest
from muarl_cli.settings.models import MODELS
from muarl_cli.settings.yamlio import load_file, load_text, mapping

STAGE_NAMES = tuple(stage.value for stage in Stage)
_PAGES = "muarl_cli.stages"


def page(stage: Stage) -> dict[str, Any]:
    """The page of a stage, nested as it is written."""
    name = f"stages/{stage.value}.yaml"
    return mapping(load_text(files(_PAGES).joinpath(f"{stage.value}.yaml").read_text("utf-8"), name), name)


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    folder = files(_PAGES).joinpath("profiles")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def profile(name: str, _seen: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """The sections of a profile: one that ships, or the path of a YAML file. Values are flat: dotted key to value.

    Raises `MuarlError` for an unknown profile, an unknown section, or profiles that extend each other in a circle.
    """
    if name in _seen:
        raise MuarlError(f"profiles extend each other: {' -> '.join((*_seen, name))}", code=ExitCode.CONFIG)
    content, where = _profile_text(name)
    base = content.pop("extends", "")
    sections = profile(str(base), (*_seen, name)) if base else {}
    for section, values in content.items():
        if section not in STAGE_NAMES:
            raise MuarlError(
                f"unknown section {section!r}",
                where=where,
                next_step=nearest(section, STAGE_NAMES),
                code=ExitCode.CONFIG,
            )
        sections.setdefault(section, {}).update(flatten(mapping(values, where), MODELS[Stage(section)]))
    return sections


def _profile_text(name: str) -> tuple[dict[str, Any], str]:
    if name in profile_names():
        where = f"stages/profiles/{name}.yaml"
        return mapping(
            load_text(files(_PAGES).joinpath("profiles", f"{name}.yaml").read_text("utf-8"), where), where
        ), where
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return load_file(Path(name)), name
    raise MuarlError(
        f"unknown profile {name!r}",
        next_step=f"{nearest(name, profile_names())} or give the path of a YAML file",
        code=ExitCode.CONFIG,
    )


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings of a stage, in the order of the model."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def groups(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all groups of a stage: user, limits, ..."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield prefix + name
            yield from groups(inner, f"{prefix}{name}.")


def flatten(values: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Nested values to dotted keys, down to the settings of `model` (a mapping that is itself a value stays whole).

    Keys that the model does not have come out as they are; the resolver names them. `user.model: x` and
    `user: {model: x}` are the same.
    """
    inner = set(groups(model))
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in inner and isinstance(value, Mapping):
            flat.update(flatten(value, model, f"{name}."))
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys to nested values."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested
