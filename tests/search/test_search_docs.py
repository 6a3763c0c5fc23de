"""docs/search.md: every row of its table searches for two epochs, and its example runs as printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tfnas.latency import reachable_range_ms
from tfnas.search import Loaders, Setting, latency_constraint, search
from tfnas.space import load_space
from tfnas.stages.params import load_params

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "search.md").read_text()
ROWS = [
    (f"{table}: {row}", re.findall(r"`([^`]+)`", change))
    for table, row, change in re.findall(r"^\| ([^|]+) \| (.+?) \| (`.+`) \|$", TEXT, re.MULTILINE)
]
SEARCHES = [(name, changes) for name, changes in ROWS if not changes[0].startswith("space:")]
SPACES = [changes[0].removeprefix("space: ") for _, changes in ROWS if changes[0].startswith("space:")]


def changed_params(folder: Path, changes: list[str]):
    """The parameters of a file in which lines as those of the table have been changed."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for change in changes:
        key, _, value = change.partition(": ")
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place[section]
        assert last in place
        place[last] = yaml.safe_load(value)
    values["search"] |= {"epochs": 2, "warmup_epochs": 1, "batch_size": 4}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(folder / "params.yaml").search


def test_the_table_has_every_row_of_the_papers() -> None:
    counts = {table: sum(name.startswith(f"{table}: ") for name, _ in ROWS) for table in ("3", "4", "5", "13")}
    assert counts == {"3": 5, "4": 3, "5": 6, "13": 6}
    assert len({tuple(changes) for _, changes in ROWS if changes != ["search.elasticity_scaling: true"]}) == 27


@pytest.mark.parametrize(("name", "changes"), SEARCHES, ids=[name for name, _ in SEARCHES])
def test_a_row_searches(name, changes, tmp_path, tiny_space, tiny_table, loaders) -> None:
    params = changed_params(tmp_path, changes)
    low, high = reachable_range_ms(tiny_space, tiny_table)
    target_ms = low + 0.35 * (high - low)
    constraint = latency_constraint(tiny_space, tiny_table, target_ms)
    result = search(constraint, Loaders(*loaders), Setting(params, within="budget"))
    assert [record.architecture_loss is None for record in result.history] == [True, False]
    assert torch.isfinite(result.alphas).all() and result.alphas.unique().numel() > 5
    architecture = result.derive(name, constraint, "budget").architecture
    last = result.history[-1]
    assert tiny_table.latency_ms(architecture) == last.derived_latency_after_ms
    assert last.derived_latency_after_ms <= target_ms or params.elasticity_scaling is False


@pytest.mark.parametrize("name", SPACES)
def test_a_shipped_space_searches(name, tmp_path, make_table) -> None:
    space, params = load_space(name), changed_params(tmp_path, [f"space: {name}"])
    table = make_table(space, resolution=32)
    batches = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))]
    low, high = reachable_range_ms(space, table)
    constraint = latency_constraint(space, table, low + 0.5 * (high - low))
    result = search(constraint, Loaders(batches, batches), Setting(params))
    assert len(result.history) == 2 and result.alphas.shape[1] == len(space.candidates)


def test_the_example_runs(tmp_path, tiny_space_file, monkeypatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    shutil.copy(tiny_space_file, tmp_path / "my_space.yaml")
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["profile_latency"] |= {"batch_size": 1, "minutes": 0.01, "warmup_runs": 0, "repeats": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(example, found)
    assert found["result"].num_classes == 4
    assert found["network"](torch.randn(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(link) -> None:
    assert (ROOT / "docs" / link).exists(), link
