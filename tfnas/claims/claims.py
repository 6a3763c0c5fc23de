"""The paper's claims: what it says, and for each of its statements the criterion that was fixed before any unit ran."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tfnas.claims.params import ClaimsParams
from tfnas.claims.units import (
    Runs,
    Unit,
    gap,
    jitter,
    late_gap,
    mean_depth,
    random_accuracy,
    share,
    top1,
    train_accuracy,
    val_accuracy,
)
from tfnas.claims.variants import (
    DEFAULT,
    EARLY_STOPPING,
    LAMBDAS,
    ONE_PATH,
    RANDOM_CLASSES,
    RANKED_CLASSES,
    UNSCALED,
    Variant,
    lambda_name,
    variants,
)
from tfnas.claims.verdicts import Tested, Verdict, decide_all, t_test

CHANCES = 3  # a supernet has learned where random networks score more than so many times chance
Measure = Callable[[Unit], float]
Group = Mapping[str, Unit]  # the units of one seed, by variant


@dataclass(frozen=True)
class Statement:
    """One sentence that a test decides.

    Attributes:
        difference: of one seed, in the direction that the paper claims; None where the seed says nothing.
        quantity: what is compared, with its unit.
    """

    text: str
    quantity: str
    variants: tuple[str, ...]
    difference: Callable[[Group], float | None]

    def test(self, runs: Runs) -> Tested:
        """The paired t-test over the seeds that have all variants."""
        common = set.intersection(*(set(runs.get(name, {})) for name in self.variants))
        groups = ({name: runs[name][number] for name in self.variants} for number in sorted(common))
        found = (self.difference(group) for group in groups)
        return t_test([value for value in found if value is not None])


@dataclass(frozen=True)
class Row:
    """A row of a claim's table; the paper's accuracy next to ours."""

    label: str
    variant: str
    paper_top1: str = "–"


@dataclass(frozen=True)
class Claim:
    """A figure or table of the paper."""

    key: str  # of its section on the page
    title: str
    says: str
    statements: tuple[Statement, ...]
    rows: tuple[Row, ...]
    drawn: tuple[str, ...] = ()  # variants that its figure shows besides

    @property
    def variants(self) -> tuple[str, ...]:
        """All that it needs."""
        named = (name for statement in self.statements for name in statement.variants)
        return tuple(dict.fromkeys([*named, *(row.variant for row in self.rows), *self.drawn]))

    def verdict(self, runs: Runs) -> Verdict:
        return decide_all([statement.test(runs) for statement in self.statements])


def higher(text: str, quantity: str, measure: Measure, better: str, worse: str) -> Statement:
    """`measure` is larger with the variant `better`."""
    return Statement(text, quantity, (better, worse), lambda group: measure(group[better]) - measure(group[worse]))


def lower(text: str, quantity: str, measure: Measure, small: str, large: str) -> Statement:
    """`measure` is smaller with the variant `small`."""
    return Statement(text, quantity, (small, large), lambda group: measure(group[large]) - measure(group[small]))


SHARE = "share of the most frequent operation, points"
TOP1 = "top-1 of the trained network, points"
GAP = "distance to the target over the searching epochs, % of the target"


def _second_paths() -> Claim:
    better = {
        ONE_PATH: "one path",
        "second_gumbel": "Gumbel + Gumbel",
        "second_min_alpha": "Gumbel + min α",
        "second_max_alpha": "Gumbel + max α",
    }
    return Claim(
        "table-3",
        "Table 3: the second path",
        "A random second path gives the best network; Gumbel + Gumbel and Gumbel + max α are worse than one path.",
        (
            *(higher(f"Random is better than {label}", TOP1, top1, DEFAULT, name) for name, label in better.items()),
            higher("One path is better than Gumbel + Gumbel", TOP1, top1, ONE_PATH, "second_gumbel"),
            higher("One path is better than Gumbel + max α", TOP1, top1, ONE_PATH, "second_max_alpha"),
        ),
        (
            Row("Gumbel", ONE_PATH, "75.8"),
            Row("Gumbel + Gumbel", "second_gumbel", "75.7"),
            Row("Gumbel + min α", "second_min_alpha", "76.0"),
            Row("Gumbel + max α", "second_max_alpha", "75.5"),
            Row("Gumbel + Random", DEFAULT, "76.3"),
        ),
    )


def _collapse() -> Claim:
    return Claim(
        "figure-2",
        "Fig. 2: operation collapse",
        "With one path, almost 80 % of the derivations fall into one operation; bi-sampling explores more, and its"
        " supernet is more accurate on training and validation images.",
        (
            lower("One operation is derived less often with bi-sampling", SHARE, share, DEFAULT, ONE_PATH),
            higher(
                "The supernet's training accuracy is higher with bi-sampling",
                "top-1 of sampled paths in the last three epochs, points",
                train_accuracy,
                DEFAULT,
                ONE_PATH,
            ),
            higher(
                "Its validation accuracy is higher, too",
                "top-1 of sampled paths in the last three epochs, points",
                val_accuracy,
                DEFAULT,
                ONE_PATH,
            ),
        ),
        (),
    )


def _depth() -> Claim:
    return Claim(
        "figure-4a",
        "Fig. 4a: depth in the three depth spaces",
        "With skip among the candidates the derived network is shallow and its depth jumps; with sink-connecting the"
        " depth is stable and converges quickly.",
        (
            higher(
                "Sink-connecting derives deeper networks than skip in the candidates",
                "mean depth over the searching epochs, layers",
                mean_depth,
                DEFAULT,
                "skip_in",
            ),
            lower(
                "Its depth changes less from epoch to epoch",
                "mean change of the depth per epoch, layers",
                jitter,
                DEFAULT,
                "skip_in",
            ),
        ),
        (),
        ("skip_out",),
    )


def _depth_spaces() -> Claim:
    def more_of_exclusion(group: Group) -> float:
        sink, out, inside = (top1(group[name]) for name in (DEFAULT, "skip_out", "skip_in"))
        return (out - inside) - (sink - out)

    return Claim(
        "table-4",
        "Table 4: accuracy in the three depth spaces",
        "Sink-connecting gives the best network, skip outside of the candidates the second best; mutual exclusion gains"
        " more than removing redundancy.",
        (
            higher("Sink-connecting is better than skip in the candidates", TOP1, top1, DEFAULT, "skip_in"),
            higher("Sink-connecting is better than skip out of the candidates", TOP1, top1, DEFAULT, "skip_out"),
            higher("Skip out is better than skip in", TOP1, top1, "skip_out", "skip_in"),
            Statement(
                "Skip out gains more over skip in than sink-connecting over skip out",
                TOP1,
                (DEFAULT, "skip_out", "skip_in"),
                more_of_exclusion,
            ),
        ),
        (
            Row("skip in candidates", "skip_in", "75.6"),
            Row("skip out candidates", "skip_out", "76.1"),
            Row("sink-connecting", DEFAULT, "76.3"),
        ),
    )


OBJECTIVES = {"C1": ("log", "log_unscaled"), "C2": ("linear", "linear_unscaled"), "Eq. 9": (DEFAULT, UNSCALED)}


def _latency() -> Claim:
    late = "distance to the target over the second half of the searching epochs, %"
    return Claim(
        "figure-4b",
        "Fig. 4b and 5: latency with three objectives",
        "With elasticity-scaling every objective quickly derives networks that meet the target; without it, Eq. 9 is"
        " more precise than C1 and C2.",
        (
            *(
                lower(f"{name}: elasticity-scaling brings the network nearer to the target", GAP, gap, scaled, unscaled)
                for name, (scaled, unscaled) in OBJECTIVES.items()
            ),
            lower("Without it, Eq. 9 is nearer to the target than C1", late, late_gap, UNSCALED, "log_unscaled"),
            lower("Without it, Eq. 9 is nearer to the target than C2", late, late_gap, UNSCALED, "linear_unscaled"),
        ),
        (),
    )


def _objectives() -> Claim:
    return Claim(
        "table-5",
        "Table 5: accuracy with three objectives",
        "Eq. 9 gives the best network, with and without elasticity-scaling.",
        (
            higher("Scaled, Eq. 9 is better than C1", TOP1, top1, DEFAULT, "log"),
            higher("Scaled, Eq. 9 is better than C2", TOP1, top1, DEFAULT, "linear"),
            higher("Not scaled, Eq. 9 is better than C1", TOP1, top1, UNSCALED, "log_unscaled"),
            higher("Not scaled, Eq. 9 is better than C2", TOP1, top1, UNSCALED, "linear_unscaled"),
        ),
        (
            Row("C1, without", "log_unscaled", "75.6"),
            Row("C1, with", "log", "75.9"),
            Row("C2, without", "linear_unscaled", "76.2"),
            Row("C2, with", "linear", "76.1"),
            Row("Eq. 9, without", UNSCALED, "76.3"),
            Row("Eq. 9, with", DEFAULT, "76.3"),
        ),
    )


def _lambda_accuracy() -> Claim:
    published = ("76.0", "76.1", "76.3", "76.2", "75.9", "75.7")
    others = [value for value in LAMBDAS if lambda_name(value, scaled=True) != DEFAULT]
    return Claim(
        "table-13",
        "Table 13: accuracy and λ",
        "λ = 0.1 gives the best network.",
        tuple(
            higher(f"0.1 is better than {value:g}", TOP1, top1, DEFAULT, lambda_name(value, scaled=True))
            for value in others
        ),
        tuple(
            Row(f"{value:g}", lambda_name(value, scaled=True), accuracy)
            for value, accuracy in zip(LAMBDAS, published, strict=True)
        ),
    )


def _lambda_latency() -> Claim:
    large, small = ([lambda_name(v, scaled=False) for v in LAMBDAS if (v >= 0.1) == is_large] for is_large in (1, 0))

    def small_is_farther(group: Group) -> float:
        means = [statistics.fmean(gap(group[name]) for name in names) for names in (small, large)]
        return means[0] - means[1]

    return Claim(
        "figure-8",
        "Fig. 8: latency and λ",
        "Without elasticity-scaling a small λ (0.05, 0.02, 0.01) misses the target by more than a large one; with it,"
        " every λ meets the target.",
        (
            Statement(
                "Not scaled, small λ are farther from the target than large ones",
                GAP,
                (*small, *large),
                small_is_farther,
            ),
            *(
                lower(
                    f"λ = {value:g}: elasticity-scaling brings the network nearer to the target",
                    GAP,
                    gap,
                    lambda_name(value, scaled=True),
                    lambda_name(value, scaled=False),
                )
                for value in LAMBDAS
            ),
        ),
        (),
    )


def _early_stopping() -> Claim:
    def same_epoch(group: Group) -> float | None:
        unit = group[EARLY_STOPPING]
        return float(unit.values["compared_top1_percent"]) - top1(unit) if unit.stopped_early else None

    return Claim(
        "appendix-e",
        "Appendix E: early stopping",
        "Stopping a search with one path when its rankings have settled gives a worse network than TF-NAS at the same"
        " epoch.",
        (
            Statement(
                "TF-NAS at the epoch of the stop is better (seeds that stopped early)",
                TOP1,
                (EARLY_STOPPING,),
                same_epoch,
            ),
            higher("TF-NAS at its end is better", TOP1, top1, DEFAULT, EARLY_STOPPING),
        ),
        (Row("one path, stopped early", EARLY_STOPPING, "75.7"), Row("TF-NAS, all epochs", DEFAULT, "76.3")),
    )


def _classes() -> Claim:
    return Claim(
        "appendix-b",
        "Appendix B: the classes of the search",
        "The classes of the search are drawn from groups of a ranking by accuracy, instead of at random.",
        (higher("Ranked groups give a better network", TOP1, top1, RANKED_CLASSES, RANDOM_CLASSES),),
        (Row("ranked groups", RANKED_CLASSES), Row("random classes", RANDOM_CLASSES)),
    )


CLAIMS: tuple[Claim, ...] = (
    _collapse(),
    _second_paths(),
    _depth(),
    _depth_spaces(),
    _latency(),
    _objectives(),
    _lambda_accuracy(),
    _lambda_latency(),
    _early_stopping(),
    _classes(),
)
LEARNS = Statement(
    "The supernet learns",
    f"top-1 of random networks with the supernet's weights, points above {CHANCES} times chance",
    (DEFAULT,),
    lambda group: random_accuracy(group[DEFAULT]) - CHANCES * group[DEFAULT].chance,
)


def chosen_claims(claims: ClaimsParams) -> list[Claim]:
    """Those that the parameters name, in their order."""
    by_key = {claim.key: claim for claim in CLAIMS}
    return [by_key[key] for key in dict.fromkeys(claims.tested)]


def needed_variants(claims: ClaimsParams) -> dict[str, Variant]:
    """What the tested claims need, and TF-NAS itself, whose supernet must learn."""
    needed = {DEFAULT, *(name for claim in chosen_claims(claims) for name in claim.variants)}
    return {name: variant for name, variant in variants(claims).items() if name in needed}


def claims_of(variant: str) -> Sequence[str]:
    """The keys of the claims that need a variant."""
    return [claim.key for claim in CLAIMS if variant in claim.variants]
