"""docs/paper.md leads to files and names that exist, and leaves out no equation and no table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/paper.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINKS = re.findall(r"\[([^\]]+)\]\((\.\./[^)]+)\)", TEXT)


@pytest.mark.parametrize("link", sorted({link for _, link in LINKS}))
def test_every_link_leads_to_a_file_with_the_names_it_shows(link) -> None:
    path = PAGE.parent / link
    assert path.exists()
    shown = " ".join(text for text, target in LINKS if target == link)
    for name in re.findall(r"`([\w.]+)`", shown) if path.is_file() else ():
        assert name == path.name or name == path.stem or name.split(".")[-1] in path.read_text(encoding="utf-8"), name


def section(title: str) -> str:
    return TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def numbers_of(title: str) -> set[int]:
    found: set[int] = set()
    for cell in re.findall(r"^\| ([\d, –]+)", section(title), flags=re.MULTILINE):
        for part in cell.rstrip(" ,").split(","):
            first, _, last = part.strip().partition("–")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def test_all_equations_tables_and_appendices_are_there() -> None:
    assert numbers_of("Equations") == set(range(1, 12))
    assert numbers_of("Tables") == set(range(1, 26))
    letters = re.findall(r"^\| ([A-K](?:, [A-K])*)", section("Appendices"), flags=re.MULTILINE)
    assert set(", ".join(letters).split(", ")) == set("ABCDEFGHIJK")


def test_every_switch_is_a_key_of_the_schema() -> None:
    from tfnas.stages.params import Params

    for path in re.findall(r"`((?:search|retrain|profile_latency)\.\w+(?:\.\w+)*)`", section("Differences")):
        model = Params
        for key in path.split("."):
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            assert key in fields, path
            model = fields[key].annotation
