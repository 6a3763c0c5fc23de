"""The page: finished and unfinished runs, numbers as they are, and nothing that it would have to load."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.claims.test_claims import SEEDS, made_unit, noise
from tfnas.claims.claims import CLAIMS, needed_variants
from tfnas.claims.page import Evidence, mean_and_deviation, render_claims, times, told, verdicts
from tfnas.claims.units import Unit
from tfnas.claims.variants import required_claims
from tfnas.claims.verdicts import t_test
from tfnas.cli.init.presets import render_preset
from tfnas.stages.params import load_params

TABLE = SimpleNamespace(device="a < b", batch_size=32)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory) -> Evidence:
    """All units, seeds apart by noise alone."""
    path = tmp_path_factory.mktemp("claims") / "params.yaml"
    path.write_text(render_preset("claims").replace("seeds: 3", f"seeds: {SEEDS}"))
    params = load_params(path)
    claims = required_claims(params, path)
    runs = {
        sharing: {
            name: {i: made_unit(name, i, top1=80 + noise(name, i)) for i in range(SEEDS)}
            for name in needed_variants(claims)
        }
        for sharing in claims.weight_sharing
    }
    for found in runs.values():
        for unit in found["early_stopping"].values():
            unit.values["compared_top1_percent"] = 80.0
    return Evidence(params, claims, runs, TABLE, {"train": 4000, "val": 10000})


@pytest.fixture(scope="module")
def page(evidence) -> str:
    return render_claims(evidence)


def test_the_page_has_every_claim_once_and_its_figures(page) -> None:
    sections = re.findall(r'<section id="([\w-]+)">', page)
    assert sections == ["verdicts", "learns", *(claim.key for claim in CLAIMS), "how"]
    drawn = {part.partition('"')[0]: part.count("<svg") for part in page.split('<section id="')[1:]}
    assert {key: count for key, count in drawn.items() if count} == {
        "figure-2": 4,
        "figure-4a": 2,
        "figure-4b": 6,
        "figure-8": 12,
    }


def test_the_page_loads_nothing_and_escapes_names(page) -> None:
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "a &lt; b" in page and "a < b" not in page


def test_page_and_data_say_the_same(evidence, page) -> None:
    found = json.loads(json.dumps(verdicts(evidence)))
    assert found["units"] == {"finished": evidence.wanted, "wanted": evidence.wanted}
    assert "units are finished" not in page
    words = [claim["verdict"] for one in found["weight_sharing"].values() for claim in one["claims"].values()]
    for word in ("holds", "not shown", "contradicts"):
        assert re.search(rf"{word}</span></h2><div class=\"big\">{words.count(word)} <small>of {len(words)}<", page)


def test_a_run_that_is_not_finished_says_so_and_shows_what_there_is(evidence) -> None:
    few = {name: found for name, found in evidence.runs["none"].items() if name in ("tf_nas", "one_path")}
    names = evidence.runs["none"]
    runs = {"none": {name: few.get(name, {}) for name in names}, "entangled": {name: {} for name in names}}
    part = Evidence(evidence.params, evidence.claims, runs, TABLE, evidence.images)
    page = render_claims(part)
    assert f"{2 * SEEDS} of {part.wanted} units are finished" in page and page.count("<svg") == 2
    claims = verdicts(part)["weight_sharing"]["entangled"]["claims"]
    assert {claim["verdict"] for claim in claims.values()} == {"not shown"}


def test_no_unit_at_all_still_makes_a_page(evidence) -> None:
    nothing = {sharing: {name: {} for name in runs} for sharing, runs in evidence.runs.items()}
    empty = Evidence(evidence.params, evidence.claims, nothing, TABLE, evidence.images)
    assert f"0 of {empty.wanted} units" in render_claims(empty) and verdicts(empty)["time"] == {}


def test_times_add_up(evidence) -> None:
    hours = 80.0 * len(evidence.units) / 3600
    assert times(evidence)["hours"] == 1.0
    assert times(evidence)["cpu_hours"] == pytest.approx(hours)
    began = {"began": "2025-12-31T23:00:00+00:00", "ended": "2025-12-31T23:30:00+00:00"}
    warm_up = Unit(began | {"seconds": 40.0, "cpu_seconds": 36.0})
    assert times(replace(evidence, warm_ups=(warm_up,)))["hours"] == 2.0
    assert times(replace(evidence, warm_ups=(warm_up,)))["cpu_hours"] == pytest.approx(hours + 0.01)


def test_numbers_are_written_with_their_spread() -> None:
    assert mean_and_deviation([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert (mean_and_deviation([1.0]), mean_and_deviation([])) == ("1.00", "–")
    assert told(t_test([-1.0, -2.0, -3.0]))["numbers"].startswith("−2.00 ± ")
    assert told(t_test([1.0])) == {"numbers": "+1.00", "p": "–", "n": "1", "verdict": "not shown"}
