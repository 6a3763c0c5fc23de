"""The shipped tables: each fits its space and says where it comes from; one packed anew is the table, rounded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tfnas.cli import main
from tfnas.jobs.errors import UserError
from tfnas.latency import LatencyTable
from tfnas.latency.profiler import profile_space
from tfnas.latency.validation import fit_calibration, random_architecture, validation_networks, write_validation
from tfnas.space import load_space
from tfnas.stages.profile_latency import calibrated
from tfnas.tables import shipped


@pytest.mark.parametrize("name", shipped.names())
def test_each_fits_its_space_and_says_where_it_comes_from(name) -> None:
    table, facts = shipped.open_table(name), shipped.describe(name)
    table.check_fits(load_space(table.space), table.resolution, source=name)
    assert table.details["cpu_share"] >= shipped.NOT_IDLE
    assert facts.error_percent is not None and 0 < facts.error_percent < 5
    assert all(f"{getattr(facts, field)}" for field in ("device", "backend", "measured_on", "version", "commit"))
    assert (shipped.FOLDER / f"{name}.json").stat().st_size < 100_000


def test_one_is_taken_by_its_name_wherever_a_file_is(tmp_path, capsys) -> None:
    name = shipped.names()[0]
    space = load_space(shipped.open_table(name).space)
    network = random_architecture(space, "mine", np.random.default_rng(0))
    network.save(tmp_path / "mine.json")
    assert main(["table", "copy", name, "--out", str(tmp_path / "t.json")]) == 0
    assert LatencyTable.load(tmp_path / "t.json") == shipped.open_table(name)
    capsys.readouterr()
    printed = []
    for table in (name, str(tmp_path / "t.json")):
        assert main(["latency", str(tmp_path / "mine.json"), "--table", table]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "total" in printed[0]


def test_list_has_each_with_its_device_and_error(capsys) -> None:
    assert main(["table", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    for name in shipped.names():
        (row,) = (row for row in rows if row.startswith(f"{name} "))
        facts = shipped.describe(name)
        assert all(str(word) in row for word in (facts.device, facts.backend, facts.space, facts.measured_on))
        assert f"{facts.error_percent:.1f} %" in row


@pytest.mark.parametrize(
    "command", [["latency", "TF-NAS-A", "--table"], ["compare", "--out", "x", "--table"], ["table", "copy"]]
)
def test_an_unknown_name_is_one_line_with_the_nearest(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "tf-nas-tiny-epyc-toch"]) == 2
    line = capsys.readouterr().err
    assert "did you mean tf-nas-tiny-epyc-torch?" in line and line.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_comes_before_a_shipped_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = shipped.names()[:2]
    shipped.copy(first, Path(second))
    assert shipped.open_table(second) == shipped.open_table(first)


@pytest.fixture
def profiled(space, fake_device, make_measuring, tmp_path):
    """A profile's folder: a device on which whole networks take 1.3 times the sum, and a little more or less."""
    networks = validation_networks(space, 12, seed=1)
    table = profile_space(space, make_measuring(fake_device())).table
    sums = np.array([table.latency_ms(network) for network in networks])
    measured = 1.3 * sums * np.exp(0.02 * np.sin(np.arange(12)))
    table, rows = calibrated(table, space, networks, list(measured), fitted=12, applied=True)
    table.save(tmp_path / "latency_table.json")
    write_validation(rows, tmp_path / "validation.csv")
    return table, rows, sums, measured


def test_packed_is_the_table_rounded_with_errors_of_unseen_networks(space, profiled, tmp_path) -> None:
    table, rows, sums, measured = profiled
    shipped.write_packed(shipped.pack(tmp_path, space, commit="abc"), tmp_path / "packed.json")
    packed = LatencyTable.load(tmp_path / "packed.json")
    assert packed.curves.keys() == table.curves.keys() and packed.alignment == table.alignment
    for key, curve in packed.curves.items():
        assert curve.widths == table.curves[key].widths
        assert curve.latencies_ms == pytest.approx(table.curves[key].latencies_ms, rel=1e-4)
    errors, found = packed.details[shipped.ERRORS], fit_calibration(sums, measured)
    assert errors["mean_absolute_percentage_error"] == pytest.approx(found.error_after_percent, rel=0.01)
    assert rows[0].unseen_ms != rows[0].table_ms  # else the test shows nothing
    assert packed.details[shipped.COMMIT] == "abc"


def test_a_table_of_a_busy_machine_is_not_packed(space, profiled, tmp_path) -> None:
    payload = json.loads((tmp_path / "latency_table.json").read_text())
    payload["details"]["cpu_share"] = 0.9
    (tmp_path / "latency_table.json").write_text(json.dumps(payload))
    with pytest.raises(UserError, match="its machine was busy"):
        shipped.pack(tmp_path, space, commit="abc")
