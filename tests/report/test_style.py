"""The texts over a figure's points lie where matplotlib draws the points."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from tfnas.report.figures.drawing import panel
from tfnas.report.figures.style import add_hover, inline_svg

XS, YS = [1.0, 2.5, 4.0], [10.0, -3.0, 7.5]


def figure(texts: Sequence[str] | None):
    made, axes = panel("title", "unit", "x")
    axes.plot(XS, YS, "o", gid="points")
    if texts is not None:
        add_hover(axes, XS, YS, texts)
    axes.margins(0.3)  # the axes change after the texts were given
    return made


def test_texts_lie_on_the_marks() -> None:
    svg = inline_svg(lambda: figure(["a", "b", "c"]), "x", "label")
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+"><title>(.)</title></circle>', svg)
    line = svg[svg.index('id="x-points"') :].split("</g>")[0]
    marks = re.findall(r'<use [^>]*?x="([\d.]+)" y="([\d.]+)"', line)
    assert [text for *_, text in circles] == ["a", "b", "c"]
    assert len(marks) == len(circles)
    for (x, y, _), mark in zip(circles, marks, strict=True):
        assert (float(x), float(y)) == pytest.approx(tuple(map(float, mark)), abs=0.06)


def test_without_texts_nothing_is_added_and_the_rest_is_the_same() -> None:
    plain = inline_svg(lambda: figure(None), "x", "label")
    told = inline_svg(lambda: figure(["a", "b", "c"]), "x", "label")
    assert "<circle" not in plain
    assert re.sub(r'<g class="hover">.*?</g>', "", told) == plain


def test_texts_are_text_and_no_markup() -> None:
    svg = inline_svg(lambda: figure(["<b>", "a & b", "</title>"]), "x", "label")
    assert "<title>&lt;b&gt;</title>" in svg and "a &amp; b" in svg and "&lt;/title&gt;" in svg
