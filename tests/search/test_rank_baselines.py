"""Stage rank_baselines: the networks that are trained, with the accuracies that the search would give them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.helpers.derived_networks import copy_shared_weights
from tests.helpers.jobs import make_job, run_job
from tests.search.test_search_stages import run
from tfnas.jobs.errors import UserError
from tfnas.latency.params import BaselinesParams, ConstraintParams
from tfnas.search import Loaders, Setting, latency_constraint, search
from tfnas.search.evaluation import top1_at_own_widths
from tfnas.search.random_networks import random_baseline
from tfnas.space import build_network
from tfnas.stages import rank_baselines, scale_baseline
from tfnas.stages.params import TargetParams

SHARING = ("none", "entangled")


@pytest.fixture(params=SHARING)
def searched(request, tiny_space, tiny_table, target_ms, loaders, make_params):
    """A search's result, its constraint and its setting."""
    constraint = latency_constraint(tiny_space, tiny_table, target_ms)
    setting = Setting(make_params(weight_sharing=request.param, channel_importance="projection"))
    return search(constraint, Loaders(*loaders, num_classes=3), setting), constraint, setting


def test_the_found_network_has_the_accuracy_that_the_search_gave_it(searched, loaders) -> None:
    result, _, setting = searched
    loaders[1].set_epoch(setting.params.epochs - 1)
    assert top1_at_own_widths(result, result.derive("x"), loaders[1], setting) == result.history[-1].derived_top1


@torch.no_grad()
@pytest.mark.parametrize("name", ["random_1", "random_2"])
def test_a_network_computes_with_its_own_most_important_channels(searched, loaders, block_parameters, name) -> None:
    """Against a plain network that holds, layer by layer, the channels with the largest projection norms."""
    result, constraint, setting = searched
    network = random_baseline(constraint, "A", name, 0)
    widths = result.build_supernet().widths()
    chosen = list(network.chosen(constraint.space))
    blocks = network.architecture.blocks
    assert any(widths[c.layer][c.operation] != blocks[c.block].expand_channels for c in chosen)
    supernet = result.build_supernet()
    for c in chosen:
        operation = list(supernet.operations())[4 * c.layer + c.operation]
        if operation.width != blocks[c.block].expand_channels:
            operation.set_width(blocks[c.block].expand_channels, "projection")
    plain = build_network(network.architecture, num_classes=3).train()
    copy_shared_weights(supernet, plain, network, block_parameters)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    correct = sum(int((plain(images).argmax(-1) == labels).sum()) for images, labels in loaders[1])
    assert top1_at_own_widths(result, network, loaders[1], setting) == 100.0 * correct / 8


def test_an_accuracy_does_not_depend_on_which_others_are_evaluated(searched, loaders) -> None:
    result, constraint, setting = searched
    networks = [random_baseline(constraint, "A", name, 0) for name in ("any_1", "any_2", "random_1", "random_2")]
    weights = {name: weight.clone() for name, weight in result.weights.items()}
    first, second = (
        {n.architecture.name: top1_at_own_widths(result, n, loaders[1], setting) for n in some}
        for some in (networks, networks[::-1])
    )
    assert first == second
    assert all(torch.equal(result.weights[name], weight) for name, weight in weights.items())


def with_networks(params, *names):
    return params.model_copy(update={"baselines": BaselinesParams(targets=["A"], networks=list(names))})


def job_of(params, folder, searched):
    inputs = {"val": folder / "val.csv", "images": folder / "images", "table": folder / "latency_table.json"}
    return make_job(
        "rank_baselines", folder / "ranked", params, inputs | {"supernet": searched.out / "supernet.pt"}, "A"
    )


def test_the_networks_are_those_that_are_scaled_and_trained(params, folder) -> None:
    asked = with_networks(params, "random_1", "any_3", "mobilenet_v2", "random_2")
    job = job_of(asked, folder, run(asked, folder, "out")[0])
    found = rank_baselines.check(job).networks
    assert list(found) == ["random_1", "any_3", "random_2"]  # a known network is not of the space
    for name, network in found.items():
        other = make_job("scale_baseline", folder / name, asked, {"table": job.inputs["table"]}, "A", network=name)
        assert scale_baseline.check(other).network.architecture == network.architecture


def test_the_file_has_a_row_per_network_over_all_held_out_images(params, folder) -> None:
    asked = with_networks(params, "random_1", "any_3", "mobilenet_v2")
    job = job_of(asked, folder, run(asked, folder, "out")[0])
    run_job(job)
    with (job.out / "supernet_top1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((job.out / "metrics.json").read_text())
    assert [(row["network"], row["kind"]) for row in rows] == [("random_1", "random"), ("any_3", "any")]
    assert metrics["networks"] == 2 and metrics["images"] == 8  # of 9, in whole batches
    for row in rows:
        top1 = float(row["top1_percent"])
        assert top1 == metrics[f"{row['network']}_top1_percent"]
        assert 0.0 <= top1 <= 100.0 and top1 * metrics["images"] / 100.0 == pytest.approx(round(top1 * 0.08))


def test_without_random_networks_there_are_no_rows(params, folder) -> None:
    asked = with_networks(params, "mobilenet_v2")
    job = job_of(asked, folder, run(asked, folder, "out")[0])
    run_job(job)
    assert (job.out / "supernet_top1.csv").read_text().splitlines() == ["network,kind,top1_percent"]
    assert json.loads((job.out / "metrics.json").read_text())["networks"] == 0


def test_a_supernet_of_another_latency_is_refused(params, folder) -> None:
    job = job_of(with_networks(params, "random_1"), folder, run(params, folder, "out")[0])
    target = TargetParams(constraint=ConstraintParams(relative=0.5), dropout=0.2)
    job = replace(job, params=job.params.model_copy(update={"targets": {"A": target}}))
    with pytest.raises(UserError, match=r"was searched for .* ms, target A now asks for"):
        rank_baselines.check(job)
