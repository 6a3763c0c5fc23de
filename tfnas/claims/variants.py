"""The variants of the search that the claims compare; each is the pipeline's own search with a few parameters changed.

A variant that several claims need is run once. A unit of work is a variant with one kind of weight sharing and one
seed. Units of one seed see the same images in the same order and start from the same weights, so that they are pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.claims.params import ClaimsParams
from tfnas.data.subset import RANDOM, RANKED_GROUPS
from tfnas.jobs.errors import UserError
from tfnas.search.params import SearchParams

if TYPE_CHECKING:
    from tfnas.stages.params import Params

LAMBDAS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # Table 13
PAPER_LAMBDA = 0.1
DEFAULT, ONE_PATH, UNSCALED, EARLY_STOPPING = "tf_nas", "one_path", "unscaled", "early_stopping"
RANKED_CLASSES, RANDOM_CLASSES = "ranked_classes", "random_classes"
WARM_UP = "warm_up"  # no variant: what most of them start from
CHANGES_WARM_UP = frozenset({"depth_space"})  # of what the variants change; the warm-up depends on nothing else of it


@dataclass(frozen=True)
class Variant:
    """A row of one of the paper's tables.

    Attributes:
        changes: of the section `search`, in the names of params.yaml; with none the variant is TF-NAS.
        trains: whether its network is trained, for claims on accuracy.
        classes: how the classes of the search are drawn, anew for each seed (`build_subset.strategy`); None: those
            that build_subset has chosen.
        compared_at: a variant whose network at the epoch where this one stops is trained as well (Appendix E).
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = True
    classes: str | None = None
    compared_at: str | None = None

    @property
    def shares_warm_up(self) -> bool:
        """Whether its search starts from the seed's warm-up, which TF-NAS and most variants have in common."""
        return self.classes is None and not CHANGES_WARM_UP & self.changes.keys()


def variants(claims: ClaimsParams) -> dict[str, Variant]:
    """All variants by name; what the paper tuned without printing it comes from the parameters."""
    unscaled = {"elasticity_scaling": False}
    log = {"latency_loss": "log", "lambda": claims.lambda_log}
    linear = {"latency_loss": "linear", "lambda": claims.lambda_linear}
    return {
        DEFAULT: Variant("TF-NAS"),
        ONE_PATH: Variant("Gumbel (one path)", {"second_path": "none"}),
        "second_gumbel": Variant("Gumbel + Gumbel", {"second_path": "gumbel"}),
        "second_min_alpha": Variant("Gumbel + min α", {"second_path": "min_alpha"}),
        "second_max_alpha": Variant("Gumbel + max α", {"second_path": "max_alpha"}),
        "skip_in": Variant("skip in candidates", {"depth_space": "skip_in"}),
        "skip_out": Variant("skip out candidates", {"depth_space": "skip_out"}),
        "log": Variant("C1, scaled", log),
        "log_unscaled": Variant("C1, not scaled", log | unscaled),
        "linear": Variant("C2, scaled", linear),
        "linear_unscaled": Variant("C2, not scaled", linear | unscaled),
        UNSCALED: Variant("Eq. 9, not scaled", unscaled),
        **_lambdas(),
        EARLY_STOPPING: Variant(
            "one path, stopped early",
            {"second_path": "none", "early_stopping": claims.early_stopping.model_dump()},
            compared_at=DEFAULT,
        ),
        RANKED_CLASSES: Variant("classes of ranked groups", classes=RANKED_GROUPS),
        RANDOM_CLASSES: Variant("random classes", classes=RANDOM),
    }


def lambda_name(value: float, *, scaled: bool) -> str:
    """The variant of a λ; the paper's is TF-NAS itself."""
    if value == PAPER_LAMBDA:
        return DEFAULT if scaled else UNSCALED
    return f"lambda_{value:g}".replace(".", "_") + ("" if scaled else "_unscaled")


def _lambdas() -> dict[str, Variant]:
    """Table 13 needs accuracies with elasticity-scaling; Fig. 8 needs no accuracies."""
    found = {}
    for value in LAMBDAS:
        if value == PAPER_LAMBDA:
            continue
        found[lambda_name(value, scaled=True)] = Variant(f"λ = {value:g}", {"lambda": value})
        found[lambda_name(value, scaled=False)] = Variant(
            f"λ = {value:g}, not scaled", {"lambda": value, "elasticity_scaling": False}, trains=False
        )
    return found


def required_claims(params: Params, source: str | Path) -> ClaimsParams:
    """The section `claims`.

    Raises:
        UserError: the parameters have none, or their first target names its network.
    """
    if params.claims is None:
        raise UserError(f"{source}: has no section claims; `tfnas init claims` writes a params.yaml that has one")
    target, settings = next(iter(params.targets.items()))
    if settings.constraint.is_given:
        raise UserError(f"{source}: targets.{target} names its network; the claims search for the first target")
    return params.claims


def unit_search(params: Params, variant: Variant, sharing: str) -> SearchParams:
    """The section `search` of a unit."""
    changed = params.search.model_dump(by_alias=True) | {"weight_sharing": sharing} | dict(variant.changes)
    return SearchParams.model_validate(changed)


def unit_seed(params: Params, number: int) -> int:
    """The seed of the unit with a number, counted from 0."""
    return params.seed + number


def warm_up_values(params: Params, claims: ClaimsParams, sharing: str, number: int) -> dict[str, Any]:
    """All parameters that the warm-up of a seed depends on, and those of the search that it does not."""
    values = unit_values(params, claims, DEFAULT, sharing, number)
    return {key: values[key] for key in ("space", "resolution", "prepare_data", "device", "seed", "search")}


def unit_values(params: Params, claims: ClaimsParams, name: str, sharing: str, number: int) -> dict[str, Any]:
    """All parameters that a unit's result depends on, as plain data."""
    variant, plain = variants(claims)[name], params.model_dump(mode="json", by_alias=True)
    target = next(iter(params.targets))
    values = {key: plain[key] for key in ("space", "resolution", "prepare_data", "device")}
    values["device"].pop("workers")  # changes no result
    values |= {"variant": name, "seed": unit_seed(params, number), "within": params.derive.within}
    values["search"] = unit_search(params, variant, sharing).model_dump(mode="json", by_alias=True)
    values["constraint"] = plain["targets"][target]["constraint"]
    if variant.trains:
        values["retrain"], values["dropout"] = plain["retrain"], plain["targets"][target]["dropout"]
    if variant.classes is not None:
        values["build_subset"] = plain["build_subset"] | {"strategy": variant.classes, "groups": claims.groups}
    return values
