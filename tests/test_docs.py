"""What the pages name exists: files, Python names, links and the headings that they lead to."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tfnas.latency.backends.registry import GROUP
from tfnas.stages.registry import NAMED_FILES, STAGES, Stage

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("workflow/report/*.rst")]
)
FOLDERS = "tfnas|tests|benchmarks|workflow|profiles|presets|examples|docs"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*[\w*]")
PLACEHOLDER = re.compile(r"[\w./-]*[<{][\w./<>{}-]*")  # workflow/scripts/<stage>.py
PYTHON_FILE = re.compile(r"(?<![\w/.<>*-])\w+\.py\b(?!\w)")
DOTTED_NAME = re.compile(r"(?<![\w/.-])tfnas(?:\.[A-Za-z_]\w*)+")
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def ids(pages: list[Path]) -> list[str]:
    return [page.relative_to(ROOT).as_posix() for page in pages]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def is_python_name(name: str) -> bool:
    """Whether a dotted name can be imported: a module, or a name inside one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = PLACEHOLDER.sub("", text_of(page))
    assert {path for path in PATH.findall(text) if not any(ROOT.glob(path))} == set()


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_python_file_that_a_page_names_exists(page: Path) -> None:
    text = PLACEHOLDER.sub("", text_of(page))
    named = {name for quoted in CODE.findall(text) for name in PYTHON_FILE.findall(quoted)}
    ours = {file.name for folder in FOLDERS.split("|") for file in ROOT.glob(f"{folder}/**/*.py")}
    assert named - ours - {file.name for file in ROOT.glob("*.py")} == set()


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_python_name_on_a_page_can_be_imported(page: Path) -> None:
    names = set(DOTTED_NAME.findall(text_of(page))) - {GROUP}
    assert {name for name in names if not is_python_name(name)} == set()


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = set()
    for link in ("".join(found) for found in LINK.findall(text_of(page))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.add(link)
    assert broken == set()


def test_links_lead_from_the_readme_to_every_page_of_docs() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        linked = {(page.parent / "".join(link).partition("#")[0]).resolve() for link in LINK.findall(text_of(page))}
        ahead += [target for target in linked if target in PAGES and target not in {*reached, *ahead}]
    assert set(ROOT.glob("docs/*.md")) - reached == set()


def rows(page: Path) -> dict[str, list[str]]:
    """The rows with three cells of a page's tables, by their first, a name in backquotes."""
    found = re.findall(r"^\| `([\w/]+)` \|([^|]*)\|([^|]*)\|$", text_of(page), re.MULTILINE)
    return {name: [cell.strip() for cell in cells] for name, *cells in found}


def options(stage: Stage) -> str:
    """As docs/architecture.md shows the options of a stage's script."""
    given = [*stage.per, *(given.option.replace("_", "-") for given in stage.inputs)]
    given += ["results"] if stage.reads_results else []
    return f"`{' '.join(f'--{name}' for name in given)}`" if given else "–"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_the_tables_of_stages_say_what_the_registry_says(stage: Stage) -> None:
    shown, written = rows(ROOT / "docs" / "architecture.md")[stage.name]
    _, paper = rows(ROOT / "README.md")[stage.name]
    assert shown == options(stage)
    names = {output.name + "/" * (output.kind == "folder") for output in stage.outputs}
    assert names <= set(re.findall(r"`([^`]+)`", written))
    assert paper.replace("–", "-") == stage.paper


def test_the_table_of_inputs_says_which_stages_read_a_folder() -> None:
    shown = rows(ROOT / "inputs" / "README.md")
    folders = dict.fromkeys(named.folder for named in NAMED_FILES)
    own = {folder: [named for named in NAMED_FILES if named.folder == folder] for folder in folders}
    assert shown == {
        f"{folder}/": [
            ", ".join(f"`{named.key}`" for named in those),
            ", ".join(f"`{stage}`" for named in those for stage in named.stages),
        ]
        for folder, those in own.items()
    }


def test_a_wrong_path_name_and_anchor_are_noticed() -> None:
    assert PATH.findall("see tfnas/search/no_such.py.") == ["tfnas/search/no_such.py"]
    assert not is_python_name("tfnas.search.no_such") and is_python_name("tfnas.space.zoo.load")
    assert LINK.findall("[a](b.md#c) ![d](e.png)") == [("b.md#c", ""), ("", "e.png")]
    assert "the-flow" in anchors(ROOT / "docs" / "architecture.md")
