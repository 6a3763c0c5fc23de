"""Whether a search learned: the words follow from the numbers, and the figure and the table show the same ones."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tfnas.report.figures import search as search_figures
from tfnas.report.figures.style import styled
from tfnas.report.inputs import TargetResult, read_results
from tfnas.report.learning import COLUMNS, learning_text, untrained_text, write_accuracies
from tfnas.search.params import untrained_above
from tfnas.stages.params import Params


@pytest.fixture
def target(shared_results: Path, params: Params) -> TargetResult:
    return read_results(params, shared_results).targets[0]


@pytest.fixture
def ended(target: TargetResult) -> Callable[..., TargetResult]:
    """The target with other numbers in its last epoch, and other metrics."""

    def change(*, metrics: dict[str, float] | None = None, **last: float | None) -> TargetResult:
        rows = [*target.search[:-1], {**target.search[-1], **last}]
        return replace(target, search=rows, search_metrics={**target.search_metrics, **(metrics or {})})

    return change


def test_the_numbers_are_in_the_sentence(ended) -> None:
    last = {"derived_top1": 84.04, "val_top1": 80.06, "random_top1_mean": 62.4, "random_top1_std": 5.3}
    assert learning_text(ended(metrics={"num_classes": 10}, **last)).startswith(
        "At the end the derived path scores 84.0 %, sampled paths 80.1 %, random paths 62.4 ± 5.3 %; chance is 10 %. "
    )


@pytest.mark.parametrize(
    ("derived", "mean", "words"),
    [
        (70.1, 60.0, "better than random ones by more than their spread"),
        (69.9, 60.0, "differs from random ones by no more than their spread"),
        (50.1, 60.0, "differs from random ones by no more than their spread"),
        (49.9, 60.0, "is worse than random ones by more than their spread"),
        (99.0, 27.9, "Random paths are near chance"),  # of five classes: below 20 + 0.1 * 80 %
        (99.0, 28.1, "The supernet has learned"),
    ],
)
def test_the_verdict_follows_from_chance_and_spread(ended, derived, mean, words) -> None:
    assert words in learning_text(ended(derived_top1=derived, random_top1_mean=mean, random_top1_std=10.0))


@pytest.mark.parametrize(
    ("images", "words"),
    [(150, "no more than what 150 images can tell (± 8.0 %)"), (600, "more than what 600 images can tell")],
)
def test_few_images_tell_nothing_of_small_differences(ended, images, words) -> None:
    """Two standard errors of 60 % are 8 % on 150 images, and half of that on four times as many."""
    metrics = {"num_classes": 5, "evaluation_images": images}
    assert words in learning_text(ended(metrics=metrics, derived_top1=67.0, random_top1_mean=60.0, random_top1_std=1.0))


def test_without_random_paths_it_says_so_and_the_figure_has_no_band(ended, target) -> None:
    rows = [{**row, "random_top1_mean": None, "random_top1_std": None} for row in target.search]
    without = replace(target, search=rows)
    assert "No random paths were drawn (search.evaluation.random_paths is 0)" in learning_text(without)
    with styled():
        bare, full = (search_figures.learning_figure(t).axes[0] for t in (without, target))
    assert len(full.lines) == 4 and len(full.collections) == 1  # chance, derived, sampled, random; its spread
    assert len(bare.lines) == 3 and not bare.collections


def test_the_figure_shows_the_columns_of_the_history(target) -> None:
    with styled():
        axes = search_figures.learning_figure(target).axes[0]
    curves = [list(line.get_ydata()) for line in axes.lines[1:]]
    assert sorted(curves) == sorted([row[name] for row in target.search] for name in COLUMNS.values())
    assert list(axes.lines[0].get_ydata()) == [20.0, 20.0]  # chance, of five classes
    upper = axes.collections[0].get_paths()[0].vertices[:, 1].max()
    assert upper == pytest.approx(max(row["random_top1_mean"] + row["random_top1_std"] for row in target.search))


def test_a_warm_up_near_chance_is_told_with_what_to_do(ended) -> None:
    limit = untrained_above(5)
    assert untrained_text(ended(metrics={"num_classes": 5, "warm_up_loss": limit - 1e-3})) is None
    said = untrained_text(ended(metrics={"num_classes": 5, "warm_up_loss": limit + 1e-3}))
    assert said is not None and "cross-entropy of 1.45, above 0.9 ln K = 1.45" in said
    assert "search.warmup_epochs" in said and "search.weight_sharing: entangled" in said and "fewer candidates" in said


def test_a_search_without_warm_up_is_not_told(target) -> None:
    metrics = {name: value for name, value in target.search_metrics.items() if name != "warm_up_loss"}
    assert untrained_text(replace(target, search_metrics=metrics)) is None


def test_the_page_shows_the_warning_of_the_target_that_has_it(
    ended, target, shared_results, params, make_page: Callable[..., str]
) -> None:
    results = read_results(params, shared_results)
    spoiled = ended(metrics={"warm_up_loss": 1.6})
    assert "had hardly learned" not in make_page(replace(results, targets=[ended(metrics={"warm_up_loss": 0.5})]))
    page = make_page(replace(results, targets=[spoiled]))
    assert page.count("had hardly learned") == 1 and learning_text(spoiled) in page


def test_the_table_for_dvc_has_every_epoch(target, tmp_path: Path) -> None:
    write_accuracies([target], tmp_path / "accuracies")
    with (tmp_path / "accuracies" / f"{target.name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [row["epoch"] for row in target.search]
    for row, known in zip(rows, target.search, strict=True):
        assert {name: float(row[name]) for name in COLUMNS} == {name: known[c] for name, c in COLUMNS.items()}
