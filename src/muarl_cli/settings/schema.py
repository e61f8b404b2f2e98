"""JSON Schema of settings files, made from the models and the pages, so that editors can check and complete.

Invariant: nothing is required (a file sets what it wants to change), unknown keys are errors, defaults are the pages'.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import MODELS
from muarl_cli.settings.pages import page

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def stage_schema(stage: Stage) -> dict[str, Any]:
    """The schema of a file with the settings of one stage."""
    return {"$schema": _DIALECT, "title": f"muarl {stage.command}", **_section(stage)}


def profile_schema() -> dict[str, Any]:
    """The schema of a file with a section a stage: a profile."""
    sections = {stage.value: _section(stage) for stage in Stage}
    extends = {"type": "string", "description": "another profile to start from"}
    return {
        "$schema": _DIALECT,
        "title": "muarl profile",
        "type": "object",
        "properties": {"extends": extends, **sections},
        "additionalProperties": False,
    }


def _section(stage: Stage) -> dict[str, Any]:
    return _model(MODELS[stage], page(stage))


def _model(model: type[BaseModel], defaults: dict[str, Any]) -> dict[str, Any]:
    """Inline schema of a model; groups may also be written as dotted keys (`user.model: x`)."""
    raw = model.model_json_schema()
    properties: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            group = _model(inner, defaults[name])
            properties[name] = {**group, "description": (inner.__doc__ or "").strip()}
            properties.update({f"{name}.{key}": value for key, value in group["properties"].items()})
        else:
            shape = _inlined(raw["properties"][name], raw.get("$defs", {}))
            shape.pop("title", None)
            properties[name] = {**shape, "default": defaults[name]}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _inlined(shape: Any, definitions: dict[str, Any]) -> Any:
    """`shape` with references replaced by what they refer to (no definition here is recursive)."""
    if isinstance(shape, dict):
        if "$ref" in shape:
            return _inlined(definitions[shape["$ref"].rsplit("/", 1)[-1]], definitions)
        return {key: _inlined(value, definitions) for key, value in shape.items()}
    return [_inlined(item, definitions) for item in shape] if isinstance(shape, list) else shape
