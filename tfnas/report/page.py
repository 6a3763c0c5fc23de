"""The page: figures, tables and text, put into the template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tfnas.report.comparison import (
    CLASSES,
    RESOLUTION,
    DeviceRow,
    is_the_papers_task,
    networks_on_device,
    paper_tables,
    signed,
)
from tfnas.report.figures import paper as paper_figures
from tfnas.report.figures import results as result_figures
from tfnas.report.figures import search as search_figures
from tfnas.report.figures import training as training_figures
from tfnas.report.figures import worth as worth_figures
from tfnas.report.figures.drawing import architecture_svg, target_colors
from tfnas.report.html import figure_markup, page_environment, safe
from tfnas.report.inputs import Results, TargetResult
from tfnas.report.learning import learning_text, untrained_text
from tfnas.report.ranking import Ranking, ranking
from tfnas.report.summary import CLOSE_PERCENT, Numbers, provenance_rows, recorded_packages, stage_rows, summarize
from tfnas.report.worth import Compared, compared_networks
from tfnas.space import count_macs

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

TABLE_PERCENT = 5.0  # a table further off than this is mentioned


class Quantity(NamedTuple):
    """A row of the table of everything: how a number of the summary is written."""

    name: str
    unit: str
    write: Callable[[float], str]


QUANTITIES = {
    "target_ms": Quantity("Target latency", "ms", "{:.3f}".format),
    "table_latency_ms": Quantity("Latency by the table", "ms", "{:.3f}".format),
    "gap_percent": Quantity("Table against target", "%", lambda value: signed(value, "+.2f")),
    "measured_latency_ms": Quantity("Latency measured", "ms", "{:.3f}".format),
    "macs": Quantity("Multiply-adds", "M", lambda value: f"{value / 1e6:.2f}"),
    "params": Quantity("Parameters", "M", lambda value: f"{value / 1e6:.3f}"),
    "depth": Quantity("Depth", "blocks", "{:.0f}".format),
    "search_val_top1_percent": Quantity("Top-1 of sampled paths", "%", "{:.2f}".format),
    "search_derived_top1_percent": Quantity("Top-1 of the derived path, in the supernet", "%", "{:.2f}".format),
    "search_random_top1_mean_percent": Quantity("Top-1 of random paths, mean", "%", "{:.2f}".format),
    "search_random_top1_std_percent": Quantity("Top-1 of random paths, spread", "%", "{:.2f}".format),
    "retrain_initial_top1_percent": Quantity("Top-1 before retraining", "%", "{:.2f}".format),
    "retrain_teacher_top1_percent": Quantity("Top-1 of the teacher", "%", "{:.2f}".format),
    "retrain_top1_percent": Quantity("Top-1 after retraining", "%", "{:.2f}".format),
    "retrain_top1_mean_percent": Quantity("Top-1 after retraining, mean of seeds", "%", "{:.2f}".format),
    "retrain_top1_std_percent": Quantity("Top-1 after retraining, deviation of seeds", "%", "{:.2f}".format),
    "retrain_top5_percent": Quantity("Top-5 after retraining", "%", "{:.2f}".format),
    "baselines_random": Quantity("Random networks trained alike", "", "{:.0f}".format),
    "baselines_random_below": Quantity("Of them less accurate", "", "{:.0f}".format),
    "baselines_random_top1_mean_percent": Quantity("Top-1 of random networks, mean", "%", "{:.2f}".format),
    "baselines_margin_points": Quantity("Margin over their mean", "points", "{:+.2f}".format),
    "baselines_margin_low_points": Quantity("Margin, 95 % interval from", "points", "{:+.2f}".format),
    "baselines_margin_high_points": Quantity("Margin, 95 % interval to", "points", "{:+.2f}".format),
    "ranking_equal_latency_networks": Quantity("Random networks in the supernet", "", "{:.0f}".format),
    "ranking_equal_latency_spearman": Quantity("Supernet against training, Spearman", "", "{:.2f}".format),
    "ranking_equal_latency_kendall": Quantity("Supernet against training, Kendall", "", "{:.2f}".format),
    "ranking_equal_latency_macs_spearman": Quantity("Multiply-adds against training, Spearman", "", "{:.2f}".format),
    "ranking_equal_latency_seeds_spearman": Quantity("One seed against the others, Spearman", "", "{:.2f}".format),
    "ranking_all_sizes_networks": Quantity("Random networks of all sizes in the supernet", "", "{:.0f}".format),
    "ranking_all_sizes_spearman": Quantity("The same of all sizes, Spearman", "", "{:.2f}".format),
    "ranking_all_sizes_kendall": Quantity("The same of all sizes, Kendall", "", "{:.2f}".format),
    "ranking_all_sizes_macs_spearman": Quantity("The same of all sizes, multiply-adds", "", "{:.2f}".format),
    "ranking_all_sizes_seeds_spearman": Quantity("The same of all sizes, one seed", "", "{:.2f}".format),
}


def render_page(results: Results, *, title: str) -> str:
    """The HTML of the report: one file that loads nothing, the same bytes for the same results."""
    summary = summarize(results)
    here = networks_on_device(results)
    worth = [(compared_networks(target), ranking(target)) for target in results.targets if target.baselines]
    return (
        page_environment()
        .get_template("report.html")
        .render(
            title=title,
            results=results,
            summary=summary,
            cards=[_card(target, summary[target.name]) for target in results.targets],
            table=everything(summary),
            stages=stage_rows(results),
            figures=_figures(results) | _worth_figures(worth) | _paper_figures(results, here),
            here=here,
            worth=worth,
            paper=paper_tables(results),
            same_task=is_the_papers_task(results),
            learned=[_learned(target) for target in results.targets],
            swatches=_swatches(results.targets),
            table_error=result_figures.validation_error_text(results.validation) if results.validation else None,
            chosen=[result for result in results.classes if result.group is not None],
            provenance=provenance_rows(results.provenance),
            packages=recorded_packages(results.provenance),
        )
    )


def _learned(target: TargetResult) -> tuple[str, str | None]:
    return ("", None) if target.is_given else (learning_text(target), untrained_text(target))


def everything(summary: dict[str, Numbers]) -> list[tuple[str, str, list[str]]]:
    """The table of everything: (quantity, unit, one cell per target); `–` where a target has no such number."""
    keys = list(QUANTITIES) + [key for numbers in summary.values() for key in numbers]
    rows = []
    for key in dict.fromkeys(keys):
        if any(key in numbers for numbers in summary.values()):
            quantity = QUANTITIES.get(key) or _transfer_quantity(key)
            cells = [quantity.write(numbers[key]) if key in numbers else "–" for numbers in summary.values()]
            rows.append((quantity.name, quantity.unit, cells))
    return rows


def _transfer_quantity(key: str) -> Quantity:
    dataset = key.removeprefix("transfer_").removesuffix("_top1_percent")
    return Quantity(f"Top-1 on {dataset}", "%", "{:.2f}".format)


def _card(target: TargetResult, numbers: Numbers) -> dict[str, Any]:
    """The headline of a target, and whether its network keeps to the time and uses it up; or that it is given."""
    return {
        "name": target.name,
        "numbers": numbers,
        "given": target.architecture.name if target.is_given else None,
        **({} if target.is_given else _keeps_to_target(numbers)),
        "measured": _measured(target),
        "seeds": len(target.top1),
        "transfers": {dataset: training.metrics["top1_percent"] for dataset, training in target.transfers.items()},
    }


def _keeps_to_target(numbers: Numbers) -> dict[str, Any]:
    gap = numbers["gap_percent"]
    if gap > 0.0:
        verdict, good = f"{gap:.2f} % above the target", False
    elif gap < -CLOSE_PERCENT:
        verdict, good = f"{-gap:.2f} % below the target: time left unused", False
    else:
        verdict, good = f"{-gap:.2f} % below the target", True
    return {"verdict": verdict, "good": good}


def _measured(target: TargetResult) -> str:
    """The latency measured on the table's device, and how far off the table is; empty on another device."""
    if not target.measured_on_the_tables_device:
        return ""
    measured_ms = target.derived["measured_latency_ms"]
    text = f"measured {measured_ms:.3f} ms"
    off = 0.0 if target.table_ms is None else 100.0 * (measured_ms / target.table_ms - 1.0)
    return text + (
        f", {abs(off):.0f} % {'more' if off > 0 else 'less'} than the table says" * (abs(off) > TABLE_PERCENT)
    )


def _figures(results: Results) -> dict[str, list[Markup]]:
    """SVG of every figure, by what it shows; a list, since most show one target each.

    Figures of a search are empty for a target whose network is given, and left out where no target was searched.
    """
    targets, table = results.targets, results.table
    names = search_figures.operation_names(targets)

    def each(kind: str, make: Callable[[TargetResult], Figure], label: str) -> list[Markup]:
        return [
            safe("") if t.is_given else figure_markup(f"{kind}-{t.name}", f"{label}, target {t.name}", partial(make, t))
            for t in targets
        ]

    def one(kind: str, make: Callable[[], Figure], label: str, *, shown: bool = True) -> list[Markup]:
        return [figure_markup(kind, label, make)] if shown else []

    return {
        "architecture": [safe(architecture_svg(t.architecture, f"architecture-{t.name}")) for t in targets],
        "learning": each("learning", search_figures.learning_figure, "Accuracy of derived, sampled and random paths"),
        "latency": each("latency", search_figures.latency_figure, "Latency of the derived network at each epoch"),
        "depth": each("depth", search_figures.depth_figure, "Depth of each stage at each epoch"),
        "operations": each(
            "operations",
            partial(search_figures.operations_figure, names=names),
            "Strongest operation of each layer at each epoch",
        ),
        "percentages": each(
            "percentages",
            partial(result_figures.percentages_figure, names=names),
            "How often each operation was derived, in two layers",
        ),
        "supernet": one(
            "supernet",
            partial(training_figures.supernet_figure, targets),
            "Accuracy of the paths that the search samples",
            shown=bool(results.searched),
        ),
        "entropy": one(
            "entropy",
            partial(training_figures.entropy_figure, targets),
            "Entropy of alpha",
            shown=bool(results.searched),
        ),
        "training": _training_figures(targets),
        "validation": one(
            "validation",
            partial(result_figures.validation_figure, results.validation),
            "Latency of whole networks, measured against the table",
            shown=bool(results.validation),
        ),
        "stage-latency": one(
            "stage-latency",
            partial(result_figures.stage_latency_figure, table, targets),
            "Latency of each stage of the networks",
            shown=any(target.table_ms is not None for target in targets),
        ),
        "classes": one("classes", partial(result_figures.class_figure, results.classes), "Accuracy of each class"),
    }


def _worth_figures(worth: Sequence[tuple[Compared, Ranking]]) -> dict[str, list[Markup]]:
    """Of the targets with baselines; empty where there are no two in the supernet to rank."""
    figures: dict[str, list[Markup]] = {"worth": [], "ranking": []}
    for compared, ranked in worth:
        name = compared.found.name
        make = partial(worth_figures.worth_figure, compared)
        label = f"Accuracy against latency of networks trained alike, target {name}"
        figures["worth"].append(figure_markup(f"worth-{name}", label, make))
        make = partial(worth_figures.ranking_figure, ranked, name)
        label = f"Accuracy of random networks, trained alone against in the supernet, target {name}"
        svg = figure_markup(f"ranking-{name}", label, make) if len(ranked.networks) > 1 else safe("")
        figures["ranking"].append(svg)
    return figures


def _paper_figures(results: Results, here: Sequence[DeviceRow]) -> dict[str, list[Markup]]:
    """Trade-offs of this run and of the paper; each in the other's only where the task is the same."""
    same = is_the_papers_task(results)
    published = [row for row in here if not row.ours] if same else []
    found = [
        paper_figures.Found(
            target.name,
            count_macs(target.architecture, RESOLUTION, CLASSES) / 1e6,
            target.mean,
        )
        for target in results.targets
        if same
    ]
    figures = {
        "tradeoff": ("Accuracy against latency", partial(result_figures.tradeoff_figure, results.targets, published)),
        "paper-latency": ("The paper's Table 2, accuracy against latency", paper_figures.paper_latency_figure),
        "paper-macs": ("Accuracy against multiply-adds", partial(paper_figures.paper_macs_figure, found)),
    }
    if here:
        figures["here"] = (
            "Latency of this run's and the paper's networks here",
            partial(paper_figures.on_device_figure, here),
        )
    if results.compared:
        compared = partial(paper_figures.compared_figure, results.compared)
        figures["compared"] = ("Published networks measured here, accuracy against latency", compared)
    return {kind: [figure_markup(kind, label, make)] for kind, (label, make) in figures.items()}


def _training_figures(targets: Sequence[TargetResult]) -> list[Markup]:
    """Retraining, and the transfer to each data set."""
    colors = target_colors(targets)
    runs = {"Retraining": {target.name: target.retrain for target in targets}}
    for target in targets:
        for dataset, training in target.transfers.items():
            runs.setdefault(f"Transfer to {dataset}", {})[target.name] = training
    return [
        figure_markup(
            f"training-{i}",
            f"{title}: accuracy at each epoch",
            partial(training_figures.training_figure, title, trainings, colors),
        )
        for i, (title, trainings) in enumerate(runs.items())
    ]


def _swatches(targets: Sequence[TargetResult]) -> list[tuple[str, str]]:
    """(operation, color variable) of the legend."""
    names = search_figures.operation_names(targets)
    return [(name, search_figures.operation_color(name, names)) for name in names]
