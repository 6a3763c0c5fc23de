"""The ranking network, its weights and training; counting per class against a plain loop; the ranking's file."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tfnas.data import make_loader
from tfnas.data import ranking as ranking_network
from tfnas.data.class_accuracy import ClassAccuracy, rank, read_class_accuracy, write_class_accuracy
from tfnas.data.params import FitParams
from tfnas.data.ranking import (
    build_ranking_network,
    check_ranking_weights,
    count_correct,
    estimate_statistics,
    fit,
    load_ranking_network,
)
from tfnas.jobs.errors import UserError

CPU = torch.device("cpu")
CLASSES = ["a", "b", "c"]
WNIDS = [f"n{number:08d}" for number in range(1000)]


def refused(weights: object, classes: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_ranking_network(str(weights), classes)
    assert "\n" not in str(caught.value)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(build_ranking_network(3).state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_weights_of_a_file(weights: Path) -> None:
    network = load_ranking_network(str(weights), CLASSES)
    state = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_weights_of_another_network_or_none(weights: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", CLASSES, r"none\.pth: is missing \(rank_classes\.weights\); .*fit")
    refused(weights, ["a", "b"], r"weights\.pth: knows 3 classes, the data set has 2; .*fit")
    state = torch.load(weights, weights_only=True)
    for change, words in [
        (
            {"features.0.0.weight": torch.zeros(1)},
            r"features\.0\.0\.weight has shape \[1\], the network's has \[32, 3, 3, 3\]",
        ),
        ({"extra": torch.zeros(2)}, "has extra, which the network does not have"),
        ({"classifier.1.weight": 3}, r"expected tensors by name, got 'classifier\.1\.weight' with a int"),
    ]:
        torch.save(state | change, tmp_path / "other.pth")
        refused(tmp_path / "other.pth", CLASSES, rf"other\.pth: {words}")
    (tmp_path / "other.pth").write_bytes(weights.read_bytes()[:1000])
    refused(tmp_path / "other.pth", CLASSES, r"other\.pth: is damaged or no file of weights")
    (tmp_path / "other.pth").write_text("text")
    refused(tmp_path / "other.pth", CLASSES, r"other\.pth: is damaged or no file of weights")


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_asks_for_code_does_not_run(tmp_path: Path) -> None:
    torch.save({"classifier.1.weight": Attack(tmp_path / "ran")}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", CLASSES, r"w\.pth: refers to _?io\.open; .* refused")
    assert not (tmp_path / "ran").exists()


def test_imagenets_weights_are_for_imagenets_classes_only(monkeypatch) -> None:
    monkeypatch.setattr(ranking_network, "_download", lambda: pytest.fail("downloads before the check"))
    refused(
        "imagenet", CLASSES, r"rank_classes\.weights: imagenet knows .* but the data set has 3 classes; write `fit`"
    )
    refused("imagenet", [*WNIDS[:999], "tench"], "but class 'tench' is no WordNet id")
    refused("imagenet", WNIDS[::-1], "are not in sorted order")
    refused("imagenet", WNIDS, "WordNet ids are not among ImageNet's 1,000")
    check_ranking_weights("fit", CLASSES)


def test_a_file_of_1000_classes_is_not_taken_for_other_wordnet_ids(tmp_path: Path) -> None:
    torch.save(build_ranking_network(1000).state_dict(), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", WNIDS, r"w\.pth: knows 1000 classes by their order, but some of .* WordNet ids are not")
    check_ranking_weights(str(tmp_path / "w.pth"), [f"own class {i}" for i in range(1000)])


@pytest.fixture
def imagenet(monkeypatch, tmp_path: Path) -> Path:
    """WNIDS pass for ImageNet's; torch's folder of downloads is an empty one."""
    import hashlib

    monkeypatch.setattr(ranking_network, "IMAGENET_SHA256", hashlib.sha256("\n".join(WNIDS).encode()).hexdigest())
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return tmp_path / "checkpoints"


def test_imagenets_weights_without_a_network_say_where_to_put_the_file(monkeypatch, imagenet: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    words = rf"https://\S+\.pth cannot be downloaded \(Name or service not known\); put that file into {imagenet}, or"
    refused("imagenet", WNIDS, words)


def test_imagenets_weights_from_the_folder_of_downloads(monkeypatch, imagenet: Path) -> None:
    from torchvision.models import EfficientNet_B0_Weights

    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloads"))
    state = build_ranking_network(1000).state_dict()
    imagenet.mkdir()
    torch.save(state, imagenet / Path(EfficientNet_B0_Weights.IMAGENET1K_V1.url).name)
    loaded = load_ranking_network("imagenet", WNIDS).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in state.items())


class Brightness(torch.utils.data.Dataset):
    """Noise whose mean tells the class."""

    def __init__(self, images: int, num_classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = [number % num_classes for number in range(images)]
        self.images = torch.randn(images, 3, 8, 8, generator=generator)
        self.images += 3.0 * torch.tensor(self.labels)[:, None, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.01), nn.ReLU(), nn.Conv2d(8, 3, 6), nn.Flatten()
    )


def fitted(**changes) -> nn.Module:
    params = FitParams.model_validate({"epochs": 10, "batch_size": 8, "learning_rate": 0.01} | changes)
    network = small_network()
    loader = make_loader(Brightness(24, 3), params.batch_size, shuffle=True, seed=0, drop_last=True)
    fit(network, loader, params, device=CPU, precision="float32")
    return network


def test_fitting_learns_the_classes_and_is_repeatable() -> None:
    network, data = fitted().eval(), Brightness(24, 3)
    assert (network(data.images).argmax(1) == torch.tensor(data.labels)).float().mean() > 0.9
    again = fitted().state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


class Deviations(nn.Module):
    """Scales each value, and adds its deviation in the batch; where all images are equal, gradients are NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale * x[:, :, 0, 0]
        return x + (x - x.mean(0)).square().mean(0).sqrt()


def fitted_with_equal_batches(equal: int, *, epochs: int = 1, **options) -> Tensor:
    """The scales after four batches an epoch, of which so many have one image eight times."""
    network, data = Deviations(), Brightness(32, 3)
    data.images[: 8 * equal] = data.images[0]
    loader = make_loader(data, 8, shuffle=False, seed=0, drop_last=True)
    params = FitParams(epochs=epochs, batch_size=8, learning_rate=0.01)
    fit(network, loader, params, device=CPU, precision="float32", **options)
    return network.scale.detach()


def test_a_batch_of_equal_images_costs_its_step_alone() -> None:
    for equal in (1, 2, 3):
        after = fitted_with_equal_batches(equal)
        assert after.isfinite().all() and not torch.equal(after, torch.ones(3))
    with pytest.raises(UserError, match=r"rank_classes\.fit: no step has finite gradients; raise fit\.batch_size"):
        fitted_with_equal_batches(4)


def test_steps_before_a_resumption_count() -> None:
    states: list[dict] = []
    after = fitted_with_equal_batches(3, on_epoch=lambda state: states.append(copy.deepcopy(state)))
    assert torch.equal(fitted_with_equal_batches(4, epochs=2, state=states[0]), after)


def test_statistics_are_those_of_the_images_and_weights_stay() -> None:
    network, data = small_network(), Brightness(24, 3)
    before = {name: value.clone() for name, value in network.named_parameters()}
    loader = make_loader(data, 8, shuffle=False, seed=0, drop_last=False)
    estimate_statistics(network, loader, device=CPU, precision="float32")
    seen = network[0](data.images)
    torch.testing.assert_close(network[1].running_mean, seen.mean((0, 2, 3)))
    within = torch.stack([batch.var((0, 2, 3)) for batch in seen.split(8)]).mean(0)
    torch.testing.assert_close(network[1].running_var, within)
    assert network[1].momentum == 0.01
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_fitting_that_cannot_work_is_one_line() -> None:
    with pytest.raises(UserError, match=r"rank_classes\.fit\.batch_size is larger than the training set"):
        fitted(batch_size=25)
    with pytest.raises(UserError, match=r"the loss is not finite; lower fit\.learning_rate"):
        fitted(learning_rate=1e30)


CPU = torch.device("cpu")
rows = st.lists(
    st.tuples(st.text('abc,"é', min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 6)).map(
        lambda cells: ClassAccuracy(cells[0], cells[1], min(cells[1], cells[2]))
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row.class_name,
)


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_counts_equal_a_plain_loop(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator)
    labels = torch.randint(4, (40,), generator=generator)  # class 4 has no image
    batches = list(zip(logits.split(batch_size), labels.split(batch_size), strict=True))
    images, correct = count_correct(nn.Identity(), batches, 5, device=CPU, precision="float32")
    for label in range(5):
        mine = [row for row, other in zip(logits.tolist(), labels.tolist(), strict=True) if other == label]
        assert images[label] == len(mine)
        assert correct[label] == sum(row.index(max(row)) == label for row in mine)


def test_counting_is_in_evaluation_mode() -> None:
    network = nn.Dropout(1.0)  # which gives zeros, thus class 0, while training
    images, correct = count_correct(network, [(torch.eye(3), torch.arange(3))], 3, device=CPU, precision="float32")
    assert images == correct == [1, 1, 1]


@given(rows=rows)
def test_ranking_is_by_accuracy_and_then_by_name(rows: list[ClassAccuracy]) -> None:
    ranked = rank(rows)
    assert sorted(ranked) == sorted(rows)
    assert ranked == rank(reversed(rows))
    for better, worse in pairwise(ranked):
        ahead, behind = better.correct * worse.images, worse.correct * better.images
        assert ahead > behind or (ahead == behind and better.class_name < worse.class_name)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranking") / "class_accuracy.csv"


@given(rows=rows)
def test_what_is_written_is_read(path: Path, rows: list[ClassAccuracy]) -> None:
    write_class_accuracy(rank(rows), path)
    assert read_class_accuracy(path) == rank(rows)


def test_top1_is_in_percent(path: Path) -> None:
    write_class_accuracy([ClassAccuracy("a", 8, 6)], path)
    assert path.read_text() == "class,images,correct,top1\na,8,6,75.0\n"


def test_a_damaged_row_names_its_line(path: Path) -> None:
    for row, words in [
        ("b,2,3,150.0", "class 'b' has 3 correct of 2"),
        ("b,0,0,0.0", "class 'b' has 0 correct of 0"),
        ("a,2,1,50.0", "class 'a' is there twice"),
        ("b,two,1,50.0", "'two' is not a whole number"),
    ]:
        path.write_text(f"class,images,correct,top1\na,2,1,50.0\n{row}\n")
        with pytest.raises(UserError, match=rf"class_accuracy\.csv: line 3: {words}"):
            read_class_accuracy(path)
