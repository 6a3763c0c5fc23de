"""Artifacts: written whole or not at all; digests follow content; provenance says where they came from."""

from __future__ import annotations

import hashlib
import json

import pytest

from tfnas.jobs.artifacts import (
    atomic_path,
    digest_file,
    digest_params,
    read_json,
    write_json,
    write_provenance,
    write_text,
)
from tfnas.jobs.errors import UserError


def test_a_failed_write_leaves_the_file_before_it(tmp_path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "first")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip_and_bad_files(tmp_path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kind": "thing", "format_version": 1, "ä": [1.5, None]})
    assert read_json(path, kind="thing", version=1)["ä"] == [1.5, None]
    for kind, version, words in [("other", 1, "kind is 'thing'"), ("thing", 2, "format_version is 1")]:
        with pytest.raises(UserError, match=words):
            read_json(path, kind=kind, version=version)
    path.write_text(path.read_text()[:-5])
    with pytest.raises(UserError, match=r"a\.json: is not valid JSON"):
        read_json(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="expected an object"):
        read_json(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "none.json")


def test_digest_of_a_file_is_sha256(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_digest_of_a_folder_follows_names_and_contents(tmp_path) -> None:
    folder = tmp_path / "folder"
    write_text(folder / "a", "1")
    write_text(folder / "b" / "c", "2")
    first = digest_file(folder)
    (folder / "a").rename(folder / "d")
    second = digest_file(folder)
    (folder / "d").write_text("3")
    third = digest_file(folder)
    (folder / "d").write_text("1")
    (folder / "d").rename(folder / "a")
    assert len({first, second, third}) == 3
    assert digest_file(folder) == first
    (folder / ".snakemake_timestamp").touch()
    assert digest_file(folder) == first


def test_digest_of_params_does_not_follow_their_order() -> None:
    assert digest_params({"a": 1, "b": {"c": 2, "d": 3}}) == digest_params({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_params({"a": 1}) != digest_params({"a": 2})


def test_provenance_holds_digests_of_what_went_in_and_came_out(tmp_path) -> None:
    write_text(tmp_path / "in", "x")
    write_text(tmp_path / "out", "y")
    files = {"inputs": [tmp_path / "in"], "outputs": [tmp_path / "out"]}
    write_provenance(tmp_path, stage="s", params={"seed": 1}, device="cpu", mlflow_run_id="r", **files)
    written = json.loads((tmp_path / "provenance.json").read_text())
    assert written["inputs"] == {str(tmp_path / "in"): digest_file(tmp_path / "in")}
    assert written["outputs"] == {str(tmp_path / "out"): digest_file(tmp_path / "out")}
    assert (written["params"], written["params_digest"]) == ({"seed": 1}, digest_params({"seed": 1}))
    assert {"git_commit", "created", "device", "packages", "mlflow_run_id"} <= set(written)
