"""The claims on made units: what they measure, what they decide, and what the page says."""

from __future__ import annotations

import json
import random
import typing
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.params import shipped_params
from tfnas.claims.claims import CLAIMS, LEARNS, chosen_claims, claims_of, needed_variants
from tfnas.claims.params import ClaimsParams, Key
from tfnas.claims.units import Unit, depth_of, gap, jitter, late_gap, mean_depth, read_units, share, shares, unit_path
from tfnas.claims.variants import DEFAULT, LAMBDAS, required_claims, unit_search, unit_values, variants
from tfnas.cli.init.presets import render_preset
from tfnas.jobs.errors import UserError
from tfnas.stages.params import Params, load_params
from tfnas.stages.registry import STAGES

SEEDS = 4
BY_KEY = {claim.key: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def params(tmp_path_factory) -> Params:
    path = tmp_path_factory.mktemp("claims") / "params.yaml"
    path.write_text(render_preset("claims"))
    return load_params(path)


@pytest.fixture
def claims(params) -> ClaimsParams:
    return required_claims(params, "params.yaml")


def made_unit(
    name: str, number: int, *, top1: float = 80.0, operations: str = "abab", depths=(2, 2, 2, 2), ms=4.0
) -> Unit:
    """A unit of four searching epochs after one of warm-up, in a space of one stage."""
    rows = [{"searches": False, "stage3_depth": 1, "stage3_layer1_op": "a", "train_top1": 20.0, "val_top1": 20.0}]
    for operation, depth in zip(operations, depths, strict=True):
        rows.append({"searches": True, "stage3_depth": depth, "stage3_layer1_op": operation, "train_top1": top1})
    for epoch, row in enumerate(rows, start=1):
        row |= {"epoch": epoch, "val_top1": top1, "derived_latency_after_ms": ms, "target_ms": 4.0}
        row |= {"random_top1_mean": top1 / 2, "derived_top1": top1}
    values = {"kind": "claims unit", "format_version": 1, "variant": name, "number": number, "num_classes": 10}
    values |= {"history": rows, "epochs": 5, "top1_percent": top1, "target_ms": 4.0, "macs": 1e6, "seconds": 1.0}
    values |= {"table_latency_ms": ms, "search_cpu_seconds": 60.0, "cpu_seconds": 80.0}
    return Unit(values | {"began": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T01:00:00+00:00"})


def noise(name: str, number: int) -> float:
    """Its mean over an even number of seeds is 0."""
    return (-1) ** number * random.Random(f"{name} {number // 2}").uniform(0.005, 0.01)


def made_runs(top1: dict[str, float]) -> dict[str, dict[int, Unit]]:
    """Units of every variant that needs an accuracy, each near its own."""
    return {n: {i: made_unit(n, i, top1=80 + t + noise(n, i)) for i in range(SEEDS)} for n, t in top1.items()}


def test_the_keys_of_params_are_those_of_the_claims() -> None:
    assert typing.get_args(Key) == tuple(BY_KEY)


def test_every_variant_is_needed_and_its_parameters_are_valid(params, claims) -> None:
    known = variants(claims)
    assert set(known) == set(needed_variants(claims)) and all(claims_of(name) for name in known)
    settings = {name: unit_search(params, variant, "none") for name, variant in known.items()}
    alike = [name for name, setting in settings.items() if setting == settings[DEFAULT]]
    assert alike == [DEFAULT, "ranked_classes", "random_classes"]
    assert {settings[name].lambda_ for name in known if name.startswith("lambda")} == set(LAMBDAS) - {0.1}
    rows = {row.variant for claim in CLAIMS for row in claim.rows}
    assert all(known[name].trains for name in rows)


def test_variants_share_a_warm_up_where_they_change_nothing_that_it_depends_on(params, claims) -> None:
    """What it depends on is what stage warm_up declares."""
    depends = {key.split(".")[1] for key in STAGES["warm_up"].keys if key.startswith("search.")}
    for variant in variants(claims).values():
        assert variant.shares_warm_up == (variant.classes is None and not depends & variant.changes.keys())
    assert sum(variant.shares_warm_up for variant in variants(claims).values()) == len(variants(claims)) - 4


def test_a_units_values_change_with_what_changes_it_and_with_nothing_else(params, claims) -> None:
    units = [(name, sharing, seed) for name in variants(claims) for sharing in ("none", "entangled") for seed in (0, 1)]
    texts = [json.dumps(unit_values(params, claims, *unit), sort_keys=True) for unit in units]
    assert max(Counter(texts).values()) == 1
    other = params.model_copy(update={"report": params.report.model_copy(update={"title": "x"})})
    assert [json.dumps(unit_values(other, claims, *unit), sort_keys=True) for unit in units] == texts


def test_params_without_the_section_are_one_line(claims) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: has no section claims; `tfnas init claims`"):
        required_claims(shipped_params(), "params.yaml")


def test_fewer_claims_need_fewer_variants(claims) -> None:
    few = claims.model_copy(update={"tested": ("appendix-b", "figure-4a")})
    assert [claim.key for claim in chosen_claims(few)] == ["appendix-b", "figure-4a"]
    assert set(needed_variants(few)) == {"tf_nas", "skip_in", "ranked_classes", "random_classes", "skip_out"}


def test_measures_of_a_unit() -> None:
    unit = made_unit("x", 0, operations="abaa", depths=(1, 3, 3, 2), ms=5.0)
    assert shares(unit) == {"stage3_layer1": 75.0} and share(unit) == 75.0
    assert [depth_of(row) for row in unit.searching] == [1, 3, 3, 2]
    assert mean_depth(unit) == 2.25 and jitter(unit) == 1.0
    assert gap(unit) == late_gap(unit) == 25.0
    assert not unit.stopped_early and unit.chance == 10.0


@pytest.mark.parametrize("key", [claim.key for claim in CLAIMS if claim.rows])
def test_a_claim_on_accuracy_holds_as_in_the_paper_and_is_contradicted_the_other_way(key: str) -> None:
    claim = BY_KEY[key]
    published = {row.variant: float(row.paper_top1) if row.paper_top1 != "–" else 0.0 for row in claim.rows}
    if key == "appendix-b":
        published = {"ranked_classes": 1.0, "random_classes": 0.0}
    if key == "table-5":
        published |= {"tf_nas": 77.0, "unscaled": 77.0}
    for sign, verdict in ((1, "holds"), (-1, "contradicts"), (0, "not shown")):
        runs = made_runs({name: sign * value for name, value in published.items()})
        for unit in runs.get("early_stopping", {}).values():
            unit.values["compared_top1_percent"] = unit.values["top1_percent"] + sign * 0.4 + noise("e", unit.number)
            unit.values["history"].pop()
        assert claim.verdict(runs) == verdict, sign
        few = {name: {number: found[number] for number in range(2)} for name, found in runs.items()}
        assert claim.verdict(few) == "not shown"


def test_figure_claims_follow_their_measures() -> None:
    def runs(**settings):
        return {
            name: {i: made_unit(name, i, **{k: f(i) for k, f in s.items()}) for i in range(SEEDS)}
            for name, s in settings.items()
        }

    collapsed, open_ = {"operations": lambda i: "aaab" if i else "aaaa"}, {"operations": lambda i: "abcd"}
    better = {"top1": lambda i: 81 + noise("b", i)}
    assert BY_KEY["figure-2"].verdict(runs(tf_nas=open_ | better, one_path=collapsed)) == "holds"
    assert BY_KEY["figure-2"].verdict(runs(tf_nas=collapsed, one_path=open_ | better)) == "contradicts"
    stable, shaky = {"depths": lambda i: (3, 3, 3, 3)}, {"depths": lambda i: (1, 2, 1, 2) if i else (1, 2, 2, 1)}
    assert BY_KEY["figure-4a"].verdict(runs(tf_nas=stable, skip_in=shaky)) == "holds"
    assert BY_KEY["figure-4a"].verdict(runs(tf_nas=shaky, skip_in=stable)) == "contradicts"


def test_the_supernet_learns_where_random_networks_are_far_above_chance() -> None:
    assert LEARNS.test(made_runs({DEFAULT: 0.0})).verdict == "holds"
    assert LEARNS.test(made_runs({DEFAULT: -60.0})).verdict == "contradicts"


def test_a_seed_counts_where_all_variants_have_it() -> None:
    runs = made_runs({"ranked_classes": 1.0, "random_classes": 0.0})
    del runs["ranked_classes"][0], runs["random_classes"][1]
    assert len(BY_KEY["appendix-b"].statements[0].test(runs).differences) == SEEDS - 2


def test_units_are_read_from_their_places(tmp_path: Path) -> None:
    path = unit_path(tmp_path, "log", "none", 1)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(made_unit("log", 1).values))
    assert {name: list(found) for name, found in read_units(tmp_path, ["log", "linear"], "none", 3).items()} == {
        "log": [1],
        "linear": [],
    }
    path.write_text("{}")
    with pytest.raises(UserError, match="kind"):
        read_units(tmp_path, ["log"], "none", 3)
