"""Reading YAML that both engines read alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import spell


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
