"""No figure has text on text or text cut off, however many targets and epochs there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfnas.latency.params import known_names
from tfnas.report.figures import results as percentage_figure
from tfnas.report.figures import results as result_figures
from tfnas.report.figures import search as search_figures
from tfnas.report.figures import training as training_figures
from tfnas.report.figures import worth as worth_figures
from tfnas.report.figures.drawing import spread, target_colors
from tfnas.report.figures.style import COLORS, styled
from tfnas.report.inputs import Results, read_results
from tfnas.report.ranking import Ranked, Ranking, ranking
from tfnas.report.worth import Compared, Trained, compared_networks
from tfnas.stages.params import Params

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text


@pytest.fixture(scope="module", params=["shipped", "four targets, 90 epochs, 1,000 classes"])
def results(request, params: Params, make_results: Callable[..., Path], tmp_path_factory) -> Results:
    folder = tmp_path_factory.mktemp("results") / "results"
    if request.param == "shipped":
        return read_results(params, make_results(folder, params))
    target = params.targets["A"]
    many = params.model_copy(
        update={
            "targets": dict.fromkeys(("A", "B", "C", "a_phone_of_a_long_name"), target),
            "search": params.search.model_copy(update={"epochs": 90, "warmup_epochs": 10}),
            "resolution": 224,
        }
    )
    return read_results(many, make_results(folder, many, classes=[f"n{i:08}" for i in range(1000)]))


def figures(results: Results) -> Iterator[tuple[str, Callable[[], Figure]]]:
    targets = results.targets
    names = search_figures.operation_names(targets)
    trainings = {target.name: target.retrain for target in targets}
    yield "tradeoff", lambda: result_figures.tradeoff_figure(targets)
    yield "classes", lambda: result_figures.class_figure(results.classes)
    yield "validation", lambda: result_figures.validation_figure(results.validation)
    yield "stages", lambda: result_figures.stage_latency_figure(results.table, targets)
    yield "training", lambda: training_figures.training_figure("Retraining", trainings, target_colors(targets))
    yield "supernet", lambda: training_figures.supernet_figure(targets)
    yield "entropy", lambda: training_figures.entropy_figure(targets)
    for target in targets:
        yield "worth", lambda target=target: worth_figures.worth_figure(compared_networks(target))
        yield "ranking", lambda target=target: worth_figures.ranking_figure(ranking(target), target.name)
        yield "learning", lambda target=target: search_figures.learning_figure(target)
        yield "latency", lambda target=target: search_figures.latency_figure(target)
        yield "depth", lambda target=target: search_figures.depth_figure(target)
        yield "operations", lambda target=target: search_figures.operations_figure(target, names)
        yield "percentages", lambda target=target: percentage_figure.percentages_figure(target, names)


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text that is seen; matplotlib keeps ticks beyond the limits as well, without drawing them."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in found if text.get_text()]


def check_texts(name: str, make: Callable[[], Figure]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with styled():
        figure = make()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in drawn_texts(figure)]
    for (a, box_a), (b, box_b) in combinations(boxes, 2):
        assert not box_a.padded(-1.0).overlaps(box_b), f"{name}: {a!r} on {b!r}"  # rows of text may touch
    for text, box in boxes:
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, f"{name}: {text!r} is cut off"
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, f"{name}: {text!r} is cut off"


def test_no_text_on_text_and_none_cut_off(results: Results) -> None:
    for name, make in figures(results):
        check_texts(name, make)


def made_comparison(seed: int, known: int, seeds: int, target_ms: float | None = 10.7) -> Compared:
    """Networks of nearly the same latency and accuracy, with the longest names."""
    random = np.random.default_rng(seed)

    def trained(name: str, kind: str) -> Trained:
        return Trained(name, kind, 10.7 + random.normal(0, 0.4), tuple(90 + random.normal(0, 0.2, seeds)))

    names = sorted(known_names(), key=len)[::-1][:known]
    return Compared(
        trained("a_phone_of_a_long_name", "found"),
        [trained(f"random_{i}", "random") for i in range(8)],
        [trained(name, "known") for name in names],
        target_ms,
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("known", "seeds"), [(0, 1), (4, 3), (8, 2)])
def test_the_known_networks_names_have_room(seed: int, known: int, seeds: int) -> None:
    compared = made_comparison(seed, known, seeds)
    check_texts("worth", lambda: worth_figures.worth_figure(compared))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("target_ms", [10.7, 13.0, None])
def test_every_network_is_at_its_latency_and_mean_and_the_target_is_in_sight(
    seeds: int, target_ms: float | None
) -> None:
    compared = made_comparison(0, 4, seeds, target_ms)
    with styled():
        axes = worth_figures.worth_figure(compared).axes[0]
    points = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1]
    networks = [compared.found, *compared.random, *compared.known]
    assert sorted(points) == sorted((network.latency_ms, network.mean) for network in networks)
    lines = [line.get_xdata()[0] for line in axes.lines if len(line.get_xydata()) == 2]
    assert lines == ([] if target_ms is None else [target_ms])
    assert all(axes.get_xlim()[0] < x < axes.get_xlim()[1] for x in (*lines, *(x for x, _ in points)))
    assert len(axes.collections) == (len(networks) if seeds > 1 else 0)  # a bar each


def test_networks_of_the_targets_latency_are_filled() -> None:
    rows = [("random_1", 70.0, 89.0), ("any_1", 60.0, 85.0), ("random_2", 71.0, 88.0)]
    networks = [Ranked(name, name.split("_")[0], 1e6, supernet, (alone,)) for name, supernet, alone in rows]
    with styled():
        axes = worth_figures.ranking_figure(Ranking(networks), "A").axes[0]
    found = [(*line.get_xydata()[0], line.get_markerfacecolor() != "none") for line in axes.lines]
    assert found == [(supernet, alone, name.startswith("random")) for name, supernet, alone in rows]


@given(st.lists(st.floats(-50, 250), min_size=1, max_size=8))
def test_labels_keep_their_order_and_distance(wanted: list[float]) -> None:
    places = spread(sorted(wanted), 10.0, 120.0)
    assert all(b - a >= 10.0 - 1e-9 for a, b in pairwise(places))
    assert places[-1] <= 120.0 + 1e-9
    assert places[0] >= -1e-9


@given(st.lists(st.integers(0, 10), min_size=1, max_size=8, unique=True))
def test_labels_with_room_stay_where_they_belong(tens: list[int]) -> None:
    wanted = [12.0 * ten for ten in sorted(tens)]
    assert spread(wanted, 10.0, 120.0) == pytest.approx(wanted)


def test_the_named_classes_stand_with_their_accuracy_and_the_chosen_with_their_group(results: Results) -> None:
    with styled():
        figure = result_figures.class_figure(results.classes[:10])
    shown = [text.get_text() for text in figure.axes[0].texts]
    for result, text in zip(results.classes, shown, strict=False):
        assert text.startswith(f"{result.top1_percent:.1f}")
        assert ("group" in text) == (result.group is not None)


def test_every_chosen_class_is_a_point_of_the_curve(results: Results) -> None:
    if len(results.classes) <= result_figures.NAMED_CLASSES:
        pytest.skip("few classes are named, not ranked")
    with styled():
        _, points = result_figures.class_figure(results.classes).axes[0].lines
    chosen = [(i, r.top1_percent) for i, r in enumerate(results.classes, start=1) if r.group is not None]
    assert [tuple(point) for point in points.get_xydata()] == chosen


def test_the_stages_of_a_network_add_up_to_its_latency(results: Results) -> None:
    for target in results.targets:
        parts = result_figures.stage_latencies(results.table, target.architecture)
        assert sum(parts.values()) == pytest.approx(results.table.latency_ms(target.architecture))


def test_the_last_operations_are_those_of_the_architecture(results: Results) -> None:
    for target in results.targets:
        with styled():
            figure = search_figures.operations_figure(target, search_figures.operation_names(results.targets))
        shown = [text.get_text() for text in figure.axes[0].texts]
        searched = [block for block in target.architecture.blocks if block.stage not in results.table.fixed_stages]
        operations = [text for text in shown if text != "–"]
        assert [int(text.split(", ")[1]) for text in operations] == [block.expand_channels for block in searched]
        assert [int(text[1]) for text in operations] == [block.kernel for block in searched]


def test_percentages_count_every_searching_epoch_once(results: Results) -> None:
    for target in results.targets:
        searching = [row for row in target.search if row["architecture_loss"] is not None]
        counts = percentage_figure.operation_counts(target)
        assert list(counts) == ["6.3", "7.4"]  # layers 12 and 17
        for layer, found in counts.items():
            column = f"stage{layer[0]}_layer{layer[2]}_op"
            assert found.total() == len(searching)
            assert found[searching[-1][column]] == sum(r[column] == searching[-1][column] for r in searching)


def test_latency_lines_are_the_columns_of_the_history(results: Results) -> None:
    for target in results.targets:
        with styled():
            lines = search_figures.latency_figure(target).axes[0].lines
        target_line, *curves = lines
        assert set(target_line.get_ydata()) == {target.search[-1]["target_ms"]}
        columns = ("expected_latency_ms", "derived_latency_before_ms", "derived_latency_after_ms")
        assert [list(line.get_ydata()) for line in curves] == [[row[c] for row in target.search] for c in columns]


def test_operations_of_a_space_have_eight_colours() -> None:
    names = [f"k{k}_e{e}{se}" for k in (3, 5) for e in (3, 6) for se in ("", "_se")]
    colors = {search_figures.operation_color(name, names) for name in names}
    assert len(colors) == 8 and colors <= COLORS.keys()
    assert search_figures.operation_color("skip", names) == "neutral"


def test_errors_of_the_table_on_random_and_published_networks_stand_apart() -> None:
    random = [
        {"network": f"random-{i}", "table_ms": 1.01, "measured_ms": 1.0, "unseen_ms": 1.09 if i else 1.03}
        for i in range(6)
    ]
    published = {"network": "TF-NAS-A", "table_ms": 1.5, "measured_ms": 2.0, "unseen_ms": 1.5}
    both = (
        "8.0 % (95 % interval 5.0 to 9.0 %; 17 % are within 5 %, 100 % within 10 %) on 6 random networks and 25.0 %"
        " (0 % are within 5 %, 0 % within 10 %) on 1 published network"
    )
    assert result_figures.validation_error_text([*random, published]) == both
    assert result_figures.validation_error_text([published]) == both.partition("networks and ")[2]
