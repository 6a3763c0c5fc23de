"""supernet.pt: what is saved comes back, the same bytes each time; mistakes are user errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tfnas.jobs.checkpoints import read_tensors, write_tensors
from tfnas.jobs.errors import UserError
from tfnas.search.result import load_search_result, search_result
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet


@pytest.fixture(params=WEIGHT_SHARING)
def supernet(tiny_space, request):
    torch.manual_seed(0)
    supernet = Supernet(tiny_space, 3, weight_sharing=request.param)
    with torch.no_grad():
        supernet.alphas.normal_()
        supernet.betas[1].normal_()
    for number, operation in enumerate(supernet.operations()):
        operation.set_width(operation.max_width - number % 4)
    return supernet


def test_what_is_saved_comes_back(supernet, tiny_space, tmp_path) -> None:
    result = search_result(supernet, 0.02, [])
    result.save(tmp_path / "supernet.pt")
    loaded = load_search_result(tmp_path / "supernet.pt", tiny_space)
    assert loaded.derive("x") == result.derive("x") == supernet.derive("x")
    assert (loaded.num_classes, loaded.target_ms, loaded.widths) == (3, 0.02, supernet.widths())
    x, path = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3, 0])
    again = loaded.build_supernet()
    assert again.weight_sharing == loaded.weight_sharing == supernet.weight_sharing
    assert torch.equal(again.forward_path(x, path), supernet.forward_path(x, path))


def test_result_is_a_copy(supernet) -> None:
    result = search_result(supernet, 0.02, [])
    before = result.alphas.clone()
    with torch.no_grad():
        supernet.alphas.zero_()
    assert torch.equal(result.alphas, before)


def test_same_result_gives_the_same_bytes(supernet, tmp_path) -> None:
    for name in ("one", "two"):
        search_result(supernet, 0.02, []).save(tmp_path / f"{name}.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_other_files_and_other_spaces_are_user_errors(supernet, tiny_space, tmp_path) -> None:
    path = tmp_path / "supernet.pt"
    search_result(supernet, 0.02, []).save(path)
    with pytest.raises(UserError, match="was searched in space 'tiny'"):
        load_search_result(path, replace(tiny_space, candidates=tiny_space.candidates[:3]))
    write_tensors({**read_tensors(path), "format_version": 0}, path)
    with pytest.raises(UserError, match=r"is not a supernet\.pt"):
        load_search_result(path, tiny_space)


def test_a_space_that_was_edited_since_is_a_user_error(supernet, tiny_space, tmp_path) -> None:
    """Its names stay: kernels swapped, another activation of the head, another range of widths, another stride."""
    path = tmp_path / "supernet.pt"
    search_result(supernet, 0.02, []).save(path)
    first, second, *others = tiny_space.candidates
    swapped = (replace(first, kernel=second.kernel + 2), second, *others)
    low, high = first.expand_range
    edited = {
        "candidates.0.kernel": replace(tiny_space, candidates=swapped),
        "head.act": replace(tiny_space, head=replace(tiny_space.head, act="relu6")),
        "candidates.0.expand_range.1": replace(
            tiny_space, candidates=(replace(first, expand_range=(low, high + 1)), *tiny_space.candidates[1:])
        ),
        "stages.1.stride": replace(
            tiny_space,
            stages=(
                tiny_space.stages[0],
                replace(tiny_space.stages[1], stride=3 - tiny_space.stages[1].stride),
                *tiny_space.stages[2:],
            ),
        ),
    }
    for key, space in edited.items():
        with pytest.raises(UserError, match=f"before space tiny was edited: {key} was"):
            load_search_result(path, space)
    load_search_result(path, tiny_space)
