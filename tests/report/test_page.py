"""The page holds every figure and number, and loads nothing (names as text: test_hostile_names.py)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tfnas.jobs.artifacts import read_json, write_json
from tfnas.jobs.errors import UserError
from tfnas.report.figures.style import COLORS
from tfnas.report.html import TEMPLATES
from tfnas.report.inputs import read_results
from tfnas.report.page import everything, render_page
from tfnas.report.summary import summarize
from tfnas.stages.params import Params
from tfnas.stages.registry import STAGES
from tfnas.train.metrics import Metrics, write_seeds


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html(shared_results: Path, params: Params) -> str:
    return render_page(read_results(params, shared_results), title="TF-NAS & digits")


def test_one_figure_for_each_thing_and_target(html: str, params: Params) -> None:
    page = Page(html)
    kinds = Counter(attributes["data-kind"] for tag, attributes in page.tags if tag == "figure")
    targets = len(params.targets)
    each = dict.fromkeys(("architecture", "learning", "latency", "depth", "operations", "percentages"), targets)
    of_the_paper = ("here", "paper-latency", "paper-macs")
    of_the_run = ("tradeoff", "supernet", "entropy", "validation", "stage-latency", "classes")
    one = dict.fromkeys((*of_the_run, *of_the_paper), 1)
    worth = dict.fromkeys(("worth", "ranking"), len(params.baselines.targets))
    assert kinds == {**each, **one, **worth, "training": 1 + len(params.transfer.datasets)}
    labels = [attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"]
    assert len(labels) == sum(kinds.values()) and all(labels)


def test_ids_are_unique_and_links_lead_somewhere(html: str) -> None:
    page = Page(html)
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert max(ids.values()) == 1
    used = {a[name] or "" for _, a in page.tags for name in ("href", "xlink:href") if name in a}
    used |= {f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", html)}
    assert used and all(link.startswith("#") and link[1:] in ids for link in used)


def test_the_page_loads_nothing(html: str) -> None:
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]  # its own, in the page
    assert not any("src" in attributes for _, attributes in page.tags)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


def test_every_number_of_the_summary_is_in_the_table(html: str, shared_results: Path, params: Params) -> None:
    summary = summarize(read_results(params, shared_results))
    rows = everything(summary)
    assert len(rows) == len({name for numbers in summary.values() for name in numbers})
    page = Page(html)
    for _, _, cells in rows:
        assert all(cell in page.text for cell in cells)


def test_same_results_same_page(html: str, shared_results: Path, params: Params) -> None:
    assert render_page(read_results(params, shared_results), title="TF-NAS & digits") == html


def test_a_table_that_was_not_validated_and_absent_provenance_are_said(
    make_results: Callable[..., Path], params: Params, tmp_path: Path
) -> None:
    folder = make_results(tmp_path / "results", params)
    (folder / "profile_latency/validation.csv").write_text("network,table_ms,measured_ms,unseen_ms\n")
    for path in folder.rglob("provenance.json"):
        path.unlink()
    html = render_page(read_results(params, folder), title="x")
    assert 'data-kind="validation"' not in html and "No network was measured end to end" in html
    assert "No provenance.json was found" in html


def test_the_headline_is_the_mean_over_seeds_and_tells_what_the_saved_weights_have(
    make_results: Callable[..., Path], params: Params, tmp_path: Path
) -> None:
    folder, target = make_results(tmp_path / "results", params), next(iter(params.targets))
    saved = read_json(folder / f"retrain/{target}/metrics.json")["top1_percent"]
    several = [Metrics(0.1, top1, 99.9) for top1 in (saved, saved - 3.0, saved - 6.0)]
    write_seeds(several, folder / f"retrain/{target}/seeds.csv")
    html = render_page(read_results(params, folder), title="x")
    headlines = re.findall(r'<div class="big">(.+?)</div>\n(?:<p class="note">(.+?)</p>)?', html)
    assert len(headlines) == len(params.targets) > 1
    assert headlines[0] == (
        f"{saved - 3.0:.2f} <small>± 3.00 % top-1</small>",
        f"mean and deviation of 3 seeds; the saved weights: {saved:.2f} %",
    )
    assert all("±" not in headline for headline, _ in headlines[1:])
    assert f"{saved - 3.0:.2f} % (mean of 3 seeds)" in html


def test_latency_measured_on_another_device_is_not_taken_for_the_targets(
    html: str, make_results: Callable[..., Path], params: Params, tmp_path: Path
) -> None:
    folder = make_results(tmp_path / "results", params)
    assert "called measured" not in html
    path = folder / f"derive/{next(iter(params.targets))}/metrics.json"
    write_json(path, read_json(path) | {"measured_on": "My Laptop", "table_of": "Some Phone"})
    text = " ".join(render_page(read_results(params, folder), title="x").split())
    assert "The table is of Some Phone; the latencies called measured are of" in text and "pipeline, My Laptop" in text


def test_every_target_and_stage_has_its_place(html: str, params: Params) -> None:
    page = Page(html)
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [name for name in ids if name and name.startswith("target-")] == [
        f"target-{name}" for name in params.targets
    ]
    stages = html[html.index('<section id="stages">') :].split("</section>")[0]
    assert re.findall(r'<th scope="row"><a href="#[\w-]+">(\w+)</a></th>', stages) == [*STAGES][:-1]


def test_values_are_told_without_a_script(html: str) -> None:
    titles = re.findall(r"<title>(.*?)</title></circle>", html, re.DOTALL)
    assert len(titles) == html.count("<circle ") > 100 and all(titles)
    assert "TF-NAS-A (paper)\n76.9 %\n18.03 ms" in titles


def test_the_papers_numbers_are_labelled_as_no_comparison_for_digits(html: str) -> None:
    text = " ".join(Page(html).text.split())
    assert "The paper’s accuracies are of ImageNet and no measure for digits." in text
    assert text.count("No row compares with this run") == 3


def test_networks_measured_by_compare_are_shown(shared_results: Path, params: Params, tmp_path: Path) -> None:
    path = tmp_path / "comparison.csv"
    header = "network,latency_ms,spread_ms,table_ms,macs,params,published_top1,source\n"
    path.write_text(
        f"{header}TF-NAS-A,9.5,0.1,,456,8,76.9,TF-NAS paper Table 9\nregnet,7.25,0.1,,400,5,74.0,torchvision\n"
    )
    report = params.report.model_copy(update={"comparison": str(path)})
    asked = params.model_copy(update={"report": report})
    html = render_page(read_results(asked, shared_results), title="x")
    assert 'data-kind="compared"' in html and "regnet\n74.0 % (torchvision)\n7.25 ms here" in html
    path.write_text(header)
    with pytest.raises(UserError, match="has no rows"):
        read_results(asked, shared_results)


def test_the_style_sheet_has_every_colour_twice() -> None:
    css = (TEMPLATES / "report.css").read_text()
    light, dark = css.split("@media screen and (prefers-color-scheme: dark)")[:2]
    for name, color in COLORS.items():
        assert f"--{name}: {color};" in light
        assert f"--{name}: " in dark and f"--{name}: {color};" not in dark
    assert len(set(COLORS.values())) == len(COLORS)
