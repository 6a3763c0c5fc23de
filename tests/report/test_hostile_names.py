"""Class names that mean something to mathtext, XML, HTML, Markdown or a spreadsheet reach every page as themselves."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tfnas.cli.compare_runs import _write
from tfnas.data.class_accuracy import ClassAccuracy, draw_class_accuracy, read_class_accuracy, write_class_accuracy
from tfnas.deploy.evaluation import ClassRow, write_rows
from tfnas.deploy.model_card import _as_code
from tfnas.jobs.artifacts import shorten, spreadsheet_cell
from tfnas.jobs.errors import UserError
from tfnas.report.inputs import read_results
from tfnas.report.page import render_page
from tfnas.stages.params import load_params

NAMES = (
    "$_$", "x\\alpha_{y", "$\\frac{$", "$$", "<b>", "\"&'", "=cmd|' /C calc'!A0", "%", "_", "a --> b", "]]>",
    "שלום עולם", "#1f2a37", 'id="x', "url(#a)", "{x}", "-1+1", "@SUM(A1)", "1e5", "nan", "a,b", " lead",
    '"><script>alert(1)</script>', "a $x$ & b",
)  # fmt: skip
LONG = "W" * 250


def texts(svg: str) -> set[str]:
    return {"".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag[-4:] == "text"}


def test_the_figure_of_the_ranking_holds_every_name(tmp_path: Path) -> None:
    rows = [ClassAccuracy(name, 10, 5) for name in (*NAMES, LONG, "emoji 😀", "bell\x07\ufffe")]
    draw_class_accuracy(rows, tmp_path / "a.svg")
    shown = texts((tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert {shorten(row.class_name, 24).strip() for row in rows} <= {text.strip() for text in shown}
    write_class_accuracy(rows[:-1], tmp_path / "a.csv")
    assert {row.class_name for row in read_class_accuracy(tmp_path / "a.csv")} == {*NAMES, LONG, "emoji 😀"}


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_page_shows_them_as_text(make_results, params, tmp_path: Path) -> None:
    class Page(HTMLParser):
        text = ""
        tags: tuple[str, ...] = ()  # without those that have a style

        def handle_data(self, data: str) -> None:
            self.text += data

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags += () if dict(attrs).get("style") else (tag,)

    page = Page()
    results = read_results(params, make_results(tmp_path / "r", params, classes=[*NAMES, LONG]))
    page.feed(render_page(results, title="$_$ <script> <i>T</i>"))
    assert [name for name in NAMES if name.strip()[:9] not in page.text] == []
    assert page.tags.count("script") == 1 and not {"b", "i"} & {*page.tags}
    assert "$_$ <script> <i>T</i>" in page.text


def test_spreadsheets_get_no_formulas_and_numbers_stay(tmp_path: Path) -> None:
    assert [spreadsheet_cell(text) for text in ("=1", "+x", "@a", "\t=1", "-1.5", "+3", "a=b", "")] == [
        "'=1", "'+x", "'@a", "'\t=1", "-1.5", "+3", "a=b", "",
    ]  # fmt: skip
    write_rows([ClassRow("=cmd", 1, 100.0, "@x")], tmp_path / "a.csv")
    _write([("params", "=cmd", "a", "b", "-1.5")], tmp_path / "b.csv")
    cells = [cell for name in "ab" for row in csv.reader((tmp_path / f"{name}.csv").open()) for cell in row]
    assert {"'=cmd", "'@x", "-1.5"} <= set(cells) and not any(cell.startswith(("=", "@")) for cell in cells)


@pytest.mark.parametrize("name", ["<b>", "$_$", "a`b", "`", "``x"])
def test_markdown_shows_them_as_code(name: str) -> None:
    code = _as_code(name)
    fence = code[: len(code) - len(code.lstrip("`"))]
    inner = code[len(fence) : -len(fence)]
    assert inner.strip() == name and fence not in inner


@pytest.mark.parametrize("title", ["bell\x07", "two\nlines", ""])
def test_a_title_that_no_page_can_hold_is_refused_early(title: str, tmp_path: Path) -> None:
    values = yaml.safe_load(Path(__file__).parents[2].joinpath("params.yaml").read_text())
    values["report"]["title"] = title
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"report\.title"):
        load_params(tmp_path / "params.yaml")
