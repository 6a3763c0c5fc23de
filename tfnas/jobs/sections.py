"""The base class and number types of the sections of params.yaml, and pydantic errors as one line with the fix.

And reading YAML files that both engines read alike.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tfnas.jobs.artifacts import short_repr
from tfnas.jobs.errors import UserError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(abs)]  # abs: -0.0 is 0.0, for both engines
Rate = Annotated[float, Field(ge=0, lt=1), AfterValidator(abs)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
AS_LIST = Field(strict=False)  # of a tuple: YAML has lists only


class Section(BaseModel):
    """Unknown keys are errors; values cannot change after loading.

    Strict: DVC compares the values as they are written, Snakemake the validated ones, so nothing may become another
    value here. An integer for a float may: Python calls the two equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names, such as `search.weights.momentum`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def explain(error: ValidationError, model: type[BaseModel], *, source: str) -> str:
    """The first mistake as `file: key: what is wrong (value); fix`, and how many more there are.

    A misspelled key goes before the missing one that it makes.
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
        return f"{key}: expected keys and values, got {short_repr(detail['input'])}"
    if location[-1:] == ("[key]",):
        return f"{'.'.join(map(str, location[:-2]))}: {_describe_name(detail['input'])}"
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "value_error" and not location:  # about the whole file, which would follow as the value
        return message
    return f"{key}: {message[0].lower() + message[1:]}, got {short_repr(detail['input'])}{_fix(kind, detail['input'])}"


def _describe_name(name: Any) -> str:
    if isinstance(name, str):
        return f"the name {name!r} may hold letters, digits and _ only"
    return f"the name {spell(name)} is not a text for YAML; write it in quotes, '{spell(name)}'"


def _fix(kind: str, value: Any) -> str:
    """How to write a value of the wrong type; empty where nobody can know."""
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        return f"; write {spell(float(value)) if kind == 'float_type' else value.strip()} without quotes"
    if kind == "bool_type" and str(value).lower() in (*_FALSE, *_TRUE):
        return f"; write {spell(str(value).lower() in _TRUE)}"
    if kind == "string_type" and not isinstance(value, dict | list):
        return f"; write it in quotes, '{spell(value)}'"
    return ""


_FALSE, _TRUE = ("false", "no", "off", "0"), ("true", "yes", "on", "1")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def spell(value: Any) -> str:
    """A value as YAML 1.1 and 1.2 both read it; a text in quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        text = re.sub(r"e([+-])0(\d)$", r"e\1\2", repr(value))
        return re.sub(r"^(-?\d+)e", r"\1.0e", text)  # 1.1 wants a point
    return repr(value) if isinstance(value, str) else str(value)


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


def read_yaml(path: str | Path) -> Any:
    """Plain data in a YAML file that every program of the pipeline reads alike.

    Snakemake and the scripts read YAML 1.1 (PyYAML), DVC reads YAML 1.2 (ruamel.yaml): a scalar that the two take for
    different values is refused.

    Raises:
        UserError: missing file, invalid YAML, a key that is written twice, a scalar or tag with two meanings.
    """
    try:
        loader = _Loader(Path(path).read_text(encoding="utf-8"))
        root = loader.get_single_node()
        for key, node, is_key in _scalars(root):
            if (fault := _violation(node, loader, is_key=is_key)) is not None:
                raise UserError(f"{path}: line {node.start_mark.line + 1}: {key or 'top level'}: {fault}")
        return None if root is None else loader.construct_document(root)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); write one with `tfnas init`") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise UserError(f"{path}: line {line}: is not UTF-8 ({byte}); save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from None


class _Loader(yaml.SafeLoader):
    """PyYAML, which also reads a number as DVC writes it: `dvc exp run --set-param KEY=0.00004` leaves `4e-05`."""


def _scalars(root: yaml.Node | None) -> Iterator[tuple[str, yaml.ScalarNode, bool]]:
    """Every scalar with its dotted key, and whether it is a key itself; an anchored part is visited once.

    Raises:
        ConstructorError: a key is written twice.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, yaml.Node | None]] = [("", root)]
    while waiting:
        key, node = waiting.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            yield key, node, False
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(f"{key}.{index}".lstrip("."), item) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            names = [name for name, _ in node.value]
            _check_names(names)
            yield from ((key, name, True) for name in names if name.tag != "tag:yaml.org,2002:merge")
            waiting += [(f"{key}.{name.value}".lstrip("."), value) for name, value in node.value]


def _check_names(names: Sequence[yaml.Node]) -> None:
    """Refuse a key that is written twice, of which YAML would silently keep the last."""
    for index, name in enumerate(names):
        if not isinstance(name, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be one word", name.start_mark)
        if any(name.value == other.value for other in names[:index]):
            raise yaml.constructor.ConstructorError(None, None, f"key {name.value!r} is written twice", name.start_mark)


def _violation(node: yaml.ScalarNode, loader: _Loader, *, is_key: bool) -> str | None:
    """What is wrong with a scalar, and the fix; None where YAML 1.1 and 1.2 read the same."""
    plain, text = node.style is None, node.value
    if node.tag != loader.resolve(yaml.ScalarNode, text, (plain, not plain)):  # type: ignore[no-untyped-call]
        return f"{text!r} has a tag ({node.tag.replace('tag:yaml.org,2002:', '!!')}); leave the tag out"
    if not plain or _yaml_1_2() is None:
        return None
    try:
        ours, theirs = loader.construct_object(node), _read_as_dvc(text)
    except yaml.constructor.ConstructorError:
        return f"{text} has a meaning of its own in YAML; write '{text}' in quotes"
    if repr(ours) == repr(theirs):
        return None
    numbers = [spell(value) for value in (ours, theirs) if isinstance(value, bool | int | float)]
    fixes = [] if is_key else numbers
    if len(fixes) < 2:
        fixes = [*fixes, f"'{text}' in quotes"]
    return f"{text} is {spell(ours)} for Snakemake and {spell(theirs)} for DVC; write {' or '.join(fixes)}"


def _read_as_dvc(text: str) -> Any:
    """A plain scalar by YAML 1.2, as DVC loads it; behind a dash, where nothing can be a document's mark."""
    return _yaml_1_2().load(f"- {text}")[0]


@cache
def _yaml_1_2() -> Any:
    """DVC's reader; None where it is not installed, and DVC, which brings it, is not either."""
    try:
        from ruamel.yaml import YAML
    except ModuleNotFoundError:
        return None
    return YAML(typ="safe")
