"""Loading params.yaml: one clear line for a mistake, plain values for provenance and tracking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import Params
from tfnas.runtime.validation import explain


def load_params(path: str | Path) -> Params:
    """The parameters in a YAML file.

    Raises:
        UserError: missing file, invalid YAML, unknown or duplicate key, wrong type or range.
    """
    raw = read_yaml(path)
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(explain(error, Params, source=str(path))) from None


def read_yaml(path: str | Path) -> Any:
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); write one with `tfnas init`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from None


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is written twice (YAML would silently keep the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is written twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


# What the epochs with alpha and beta frozen use of the search's parameters: neither a target nor a latency table.
_WARM_UP = (
    "search.epochs",  # of the cosine
    "search.warmup_epochs",
    "search.batch_size",
    "search.weights",
    "search.temperature.initial",
    "search.depth_space",
    "search.gradient_clip",
    "search.reset_optimizers",
    "search.augmentation",
)
_DEVICE = ("device.name", "device.threads", "device.precision")  # workers changes no result
_SEARCHED_ON = ("seed", "resolution", *_DEVICE, "prepare_data")

# The keys whose values a stage's results depend on. dvc.yaml lists the same ones; a test compares them.
STAGE_KEYS: dict[str, tuple[str, ...]] = {
    "prepare_data": ("resolution", "prepare_data", "transfer.datasets", "transfer.root"),
    "rank_classes": (*_SEARCHED_ON, "rank_classes"),
    "build_subset": ("seed", "build_subset"),
    "profile_latency": ("seed", "space", "resolution", "profile_latency"),
    "warm_up": (*_SEARCHED_ON, "space", *_WARM_UP),
    "search": (*_SEARCHED_ON, "space", "search", "targets.{target}.constraint"),
    "derive": ("seed", "space", "resolution", "profile_latency", "derive", "targets.{target}.constraint"),
    "retrain": (*_SEARCHED_ON, "retrain", "targets.{target}.dropout"),
    "transfer": ("seed", *_DEVICE, "transfer", "targets.{target}.dropout"),
    "report": ("report", "targets", "transfer.targets", "transfer.datasets"),
}


def stage_params(params: Params | dict[str, Any], stage: str, target: str | None = None) -> dict[str, Any]:
    """The values that `stage` depends on, as plain data, one entry a key of `STAGE_KEYS`."""
    plain = params if isinstance(params, dict) else params.model_dump(mode="json", by_alias=True, exclude_none=False)
    keys = (key.format(target=target) for key in STAGE_KEYS[stage])
    return {key: _value_at(plain, key) for key in keys}


def _value_at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain[part]
    return plain
