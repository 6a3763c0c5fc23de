"""Turning a pydantic error into one line: file, key, value and the fix."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], *, source: str) -> str:
    """The first mistake as `file: key: what is wrong (value); fix`, and how many more there are.

    A misspelt key goes before the missing one that it makes.
    """
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    first = details[0]
    line = f"{source}: {_describe(first, model)}"
    return line if len(details) == 1 else f"{line} (and {len(details) - 1} more)"


def _describe(detail: Any, model: type[BaseModel]) -> str:
    location = tuple(part for part in detail["loc"])
    key = ".".join(str(part) for part in location) or "top level"
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        fix = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key {key!r}; {fix}"
    if kind == "missing":
        return f"{key}: is missing; add it"
    if kind in ("model_type", "model_attributes_type"):
        return f"{key}: expected keys and values, got {_short(detail['input'])}"
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "value_error" and not location:  # about the whole file, which would follow as the value
        return message
    return f"{key}: {message[0].lower() + message[1:]}, got {_short(detail['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Names (aliases) of the fields of the model that `location` leads to."""
    for part in location:
        found = _models_in(_annotation(model, part)) if isinstance(part, str) else _models_in(model)
        if not found:
            continue
        model = found[0]
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _annotation(model: Any, part: str) -> Any:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return model
    for name, field in model.model_fields.items():
        if part in (name, field.alias):
            return field.annotation
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]
