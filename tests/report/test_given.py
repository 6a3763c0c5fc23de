"""Targets whose networks are given: marked so in page and summary, without any number of a search."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.jobs import make_job, run_job
from tfnas.deploy.model_card import read_latency_target
from tfnas.jobs.artifacts import write_provenance
from tfnas.latency import LatencyTable
from tfnas.latency.params import ConstraintParams
from tfnas.report.inputs import Results, read_results
from tfnas.report.page import render_page
from tfnas.report.summary import stage_rows, summarize
from tfnas.space import zoo
from tfnas.stages.params import Params

MEMBER, STRANGER = "TF-NAS-A", "TF-NAS-MBV2-B"  # of the shipped space, and of another one
OF_A_SEARCH = ("learning", "latency", "depth", "operations", "percentages")


def with_networks(params: Params, **given: str | None) -> Params:
    """The parameters with given networks, by target; None: the target is searched as shipped."""
    targets = {}
    for target, name in given.items():
        constraint = params.targets["A"].constraint if name is None else ConstraintParams(architecture=name)
        targets[target] = params.targets["A"].model_copy(update={"constraint": constraint})
    transfer = params.transfer.model_copy(update={"targets": list(given)})
    baselines = params.baselines.model_copy(update={"targets": []})
    return params.model_copy(update={"targets": targets, "transfer": transfer, "baselines": baselines})


@pytest.fixture
def made(make_results: Callable[..., Path], params: Params, tmp_path: Path) -> Callable[..., tuple[Params, Results]]:
    def make(**given: str | None) -> tuple[Params, Results]:
        changed = with_networks(params, **given)
        return changed, read_results(changed, make_results(tmp_path / "results", changed))

    return make


def figures(html: str) -> Counter[str]:
    return Counter(re.findall(r'<figure data-kind="([^"]+)"', html))


def test_a_given_network_stands_next_to_a_searched_one(made) -> None:
    _, results = made(X=STRANGER, A=None, Y=MEMBER)
    html = render_page(results, title="x")
    shown = figures(html)
    assert [shown[kind] for kind in OF_A_SEARCH] == [1] * len(OF_A_SEARCH) and shown["architecture"] == 3
    assert html.count(f"given: {STRANGER}") == html.count(f"given: {MEMBER}") == 1 and "and 2 given" in html
    searched = html[html.index('id="target-A"') : html.index('id="target-Y"')]
    assert all(f'data-kind="{kind}"' in searched for kind in OF_A_SEARCH)
    rows = {row.stage: row.outcome for row in stage_rows(results)}
    assert rows["search"].startswith("X: given, not searched; A: ") and STRANGER in rows["derive"]


def test_the_summary_has_no_number_that_a_given_network_has_not(made) -> None:
    _, results = made(X=STRANGER, A=None, Y=MEMBER)
    summary = summarize(results)
    missing = summary["A"].keys() - summary["X"].keys()
    assert missing - {"target_ms", "gap_percent", "table_latency_ms"} == {
        name for name in summary["A"] if name.startswith("search_")
    }
    assert summary["Y"].keys() - summary["X"].keys() == {"table_latency_ms"}
    assert summary["X"]["measured_latency_ms"] == results.targets[0].derived["measured_latency_ms"]


@pytest.mark.parametrize("network", [MEMBER, STRANGER])
def test_a_run_without_any_search_has_a_page(made, network: str, tmp_path: Path) -> None:
    params, results = made(X=network)
    html = render_page(results, title="x")
    shown = figures(html)
    assert not {*OF_A_SEARCH, "supernet", "entropy"} & shown.keys() and "nothing was searched" in html
    assert shown["stage-latency"] == (network == MEMBER) and shown["tradeoff"] == shown["here"] == 1
    run_job(make_job("report", tmp_path / "results/report", params, {"results": tmp_path / "results"}))
    assert list((tmp_path / "results/report/accuracies").iterdir()) == []


@pytest.mark.parametrize(("network", "is_told"), [(MEMBER, True), (STRANGER, False)])
def test_a_model_card_has_the_tables_latency_of_a_network_of_its_space_only(made, tmp_path, network, is_told) -> None:
    made(X=network)
    results = tmp_path / "results"
    table, derived = results / "profile_latency/latency_table.json", results / "derive/X"
    write_provenance(derived, stage="derive", params={}, inputs=[table], outputs=[], device="")
    told = read_latency_target(zoo.load(network), derived / "architecture.json", None)
    assert (told is not None) == is_told
    assert told is None or (
        told.target_ms is None and told.table_ms == LatencyTable.load(table).latency_ms(zoo.load(network))
    )
