"""Files that parameters name: watched in `inputs/`, refused elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tfnas.jobs.errors import UserError
from tfnas.stages.dependencies import check_named_files, named_files
from tfnas.stages.params import Params
from tfnas.stages.registry import NAMED_FILES, STAGES

SHIPPED = Path(__file__).parents[2] / "params.yaml"


def params_with(key: str, value: str | None) -> Params:
    raw = yaml.safe_load(SHIPPED.read_text())
    *sections, last = key.split(".")
    section = raw
    for name in sections:
        section = section[name]
    section[last] = value
    if key == "build_subset.class_list" and value is not None:
        section["strategy"] = "class_list"
    return Params.model_validate(raw)


@pytest.mark.parametrize("named", NAMED_FILES, ids=lambda named: named.key)
def test_a_file_is_watched_in_its_folder_and_refused_elsewhere(named) -> None:
    for path in (f"inputs/{named.folder}/a.yaml", f"./inputs/{named.folder}/deep/a.yaml"):
        params = params_with(named.key, path)
        check_named_files(params, "params.yaml")
        for stage in STAGES:
            assert (Path(path) in named_files(params, stage)) == (stage in named.stages)
    for path in (
        "a.yaml",
        "/data/a.yaml",
        f"inputs/{named.folder}/../a.yaml",
        "inputs/other/a.yaml",
        "../inputs/a.yml",
    ):
        with pytest.raises(UserError) as caught:
            check_named_files(params_with(named.key, path), "params.yaml")
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"params.yaml: {named.key}: ") and f"inputs/{named.folder}/{Path(path).name}" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [("space", "tf-nas"), ("space", "mobilenet-v2"), ("rank_classes.weights", "fit"), ("report.comparison", None)],
)
def test_shipped_names_and_none_are_no_files(key: str, value: str | None) -> None:
    params = params_with(key, value)
    check_named_files(params, "params.yaml")
    assert [named_files(params, stage) for stage in STAGES] == [[]] * len(STAGES)


def test_a_stage_that_reads_a_file_depends_on_its_key() -> None:
    """So that naming another file re-runs it as well; and its folder is in the repository, or DVC would miss it."""
    for named in NAMED_FILES:
        for stage in named.stages:
            assert any(named.key == key or named.key.startswith(f"{key}.") for key in STAGES[stage].keys)
            assert f"inputs/{named.folder}" in STAGES[stage].user_folders
        assert (SHIPPED.parent / "inputs" / named.folder / ".gitkeep").exists()
