"""Spaces as files: the shipped ones against Table 1 and Table 10, a user's own, and every mistake in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tfnas.jobs.errors import UserError
from tfnas.space import load_space
from tfnas.space.space import SHIPPED_FOLDER, shipped_spaces

TEXT = (SHIPPED_FOLDER / "tf-nas.yaml").read_text(encoding="utf-8")


def rows(space):
    return [(s.stage, s.in_channels, s.out_channels, s.stride, s.min_depth, s.max_depth, s.act) for s in space.stages]


TABLE_1 = [
    (2, 32, 16, 1, 1, 1, "relu"),
    (3, 16, 24, 2, 1, 2, "relu"),
    (4, 24, 40, 2, 1, 3, "swish"),
    (5, 40, 80, 2, 1, 4, "swish"),
    (6, 80, 112, 1, 1, 4, "swish"),
    (7, 112, 192, 2, 1, 4, "swish"),
    (8, 192, 320, 1, 1, 1, "swish"),
]
SMALL_IMAGES = [  # Table 1 but for the stride of stage 5
    (*row[:3], 1, *row[4:]) if row[0] == 5 else row for row in TABLE_1
]
TABLE_10 = [
    (2, 32, 16, 1, 1, 1, "relu6"),
    (3, 16, 24, 2, 1, 2, "relu6"),
    (4, 24, 32, 2, 1, 3, "relu6"),
    (5, 32, 64, 2, 1, 4, "relu6"),
    (6, 64, 96, 1, 1, 4, "relu6"),
    (7, 96, 160, 2, 1, 4, "relu6"),
    (8, 160, 320, 1, 1, 1, "relu6"),
]


@pytest.mark.parametrize(
    ("name", "stages", "candidates", "stem_act", "head_act", "resolution", "stem_stride"),
    [
        ("tf-nas", TABLE_1, 8, "relu", "swish", 224, 2),
        ("tf-nas-wose", TABLE_1, 4, "relu", "swish", 224, 2),
        ("tf-nas-small-images", SMALL_IMAGES, 8, "relu", "swish", 32, 1),
        ("mobilenet-v2", TABLE_10, 4, "relu6", "relu6", 224, 2),
    ],
)
def test_macro_architecture(name, stages, candidates, stem_act, head_act, resolution, stem_stride) -> None:
    space = load_space(name)
    assert (space.name, space.resolution) == (name, resolution)
    assert rows(space) == stages
    assert len(space.candidates) == candidates
    assert (space.stem.out_channels, space.stem.stride, space.stem.act) == (32, stem_stride, stem_act)
    assert (space.head.out_channels, space.head.act) == (1280, head_act)
    assert [stage.stage for stage in space.searchable_stages] == [3, 4, 5, 6, 7, 8]


def test_input_resolutions_of_table_1() -> None:
    first = {layer.stage: layer.resolution for layer in load_space("tf-nas").layers() if layer.position == 1}
    assert first == {2: 112, 3: 112, 4: 56, 5: 28, 6: 14, 7: 14, 8: 7}


def test_no_map_of_a_small_image_is_smaller_than_a_kernel_but_the_last_ones() -> None:
    """At 32 pixels, every map is at least 4 x 4, and stages 3 to 7 read at least 8 x 8: kernels 3 and 5 differ."""
    space = load_space("tf-nas-small-images")
    read = {layer.stage: layer.resolution for layer in space.layers(32) if layer.position == 1}
    assert read == {2: 32, 3: 32, 4: 16, 5: 8, 6: 8, 7: 8, 8: 4}
    assert [layer.stride for layer in space.layers(32)][-1] == 1  # stage 8 puts out 4 x 4 as well
    assert space.candidates == load_space("tf-nas").candidates and space.head == load_space("tf-nas").head


@pytest.mark.parametrize("in_channels", [16, 24, 40, 80, 112, 192])
def test_candidates_of_table_1(in_channels) -> None:
    found = {candidate.name: candidate for candidate in load_space("tf-nas").candidates}
    assert sorted(found) == sorted(f"k{k}_e{e}{se}" for k in (3, 5) for e in (3, 6) for se in ("", "_se"))
    for name, candidate in found.items():
        ratio = 3 if "e3" in name else 6
        assert candidate.kernel == int(name[1])
        assert candidate.initial_width(in_channels) == ratio * in_channels
        assert candidate.width_range(in_channels) == (ratio * 2 * in_channels // 3, ratio * 4 * in_channels // 3)
        assert candidate.se_channels(in_channels) == (ratio // 3 * in_channels if "_se" in name else 0)


def test_stage_2_is_k3_e1_with_and_without_se() -> None:
    blocks = {name: load_space(name).stages[0].fixed for name in shipped_spaces()}
    assert all((fixed.kernel, fixed.width(32)) == (3, 32) for fixed in blocks.values())
    assert {name: fixed.se_channels(32) for name, fixed in blocks.items()} == {
        "tf-nas": 8,
        "tf-nas-wose": 0,
        "tf-nas-small-images": 8,
        "tf-nas-tiny": 0,
        "mobilenet-v2": 0,
    }


def test_a_copied_file_is_the_same_space(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    assert load_space(path) == load_space(str(path)) == load_space("tf-nas")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("act: swish}", "act: swisch}", ("stages.2.act", "'relu', 'relu6' or 'swish'", "'swisch'")),
        ("expand_range: [2, 4]", "expand_range: [4, 2]", ("candidates.0", "expand_range [4.0, 2.0] is empty")),
        ("expand_range: [2, 4]", "expand_range: [3, 3]", ("candidates.0", "expand_range [3.0, 3.0] is empty")),
        ("expand_range: [2, 4]", "expand_range: [3, 3.001]", ("candidate k3_e3", "widths 48 to 48", "stage 3")),
        ("expand_ratio: 3, ", "expand_ratio: 5, ", ("candidates.0", "expand_ratio 5.0 lies outside")),
        ("kernel: 5", "kernl: 5", ("unknown key 'candidates.2.kernl'", "did you mean 'kernel'")),
        ("stages:", "stagse:", ("unknown key 'stagse'", "did you mean 'stages'")),
        ("kernel: 5", "kernel: 4", ("candidates.2.kernel", "1, 3, 5 or 7", "got 4")),
        ("in_channels: 24", "in_channels: 25", ("stage 4: in_channels is 25, the stage before gives 24",)),
        ("stage: 4", "stage: 2", ("stage 2 follows stage 3", "number the stages upwards")),
        ("depth: [1, 3]", "depth: [3, 1]", ("stages.2", "depth [3, 1] is empty")),
        ("depth: [1, 3]", "depth: [2, 3]", ("stages.2", "sink-connecting starts at 1 layer")),
        ("stride: 2, depth: [1, 3]", "stride: 3, depth: [1, 3]", ("stages.2.stride", "1 or 2", "got 3")),
        ("depth: [1, 3], act", "depth: [1, 3], residual: true, act", ("stages.2", "residual", "stride is 1")),
        ("k5_e3, ", "k3_e3, ", ("the name 'k3_e3' is used twice",)),
        ("se_ratio: 1}", "se_ratio: 0.01}", ("candidate k3_e3_se", "se_ratio 0.01 gives 0 channels at 16")),
        ("se_ratio: 1}", "se_ratio: -1}", ("candidates.4.se_ratio", "greater than or equal to 0")),
        ("resolution: 224", "resolution: large", ("resolution", "integer", "'large'")),
        ("resolution: 224", "resolution: .inf", ("resolution", "finite number")),
        ("resolution: 224\n", "", ("resolution: is missing; add it",)),
        ("resolution: 224\n", "resolution: 224\nresolution: 32\n", ("'resolution' is written twice",)),
        ("stages:", "stages: [", ("is not valid YAML",)),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_fix(tmp_path, old, new, words) -> None:
    assert old in TEXT
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_space(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for word in words:
        assert word in message, message


def test_a_fixed_stage_has_one_depth(tmp_path) -> None:
    assert "depth: [1, 1]" in TEXT
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace("depth: [1, 1]", "depth: [1, 3]", 1))
    with pytest.raises(UserError, match=r"depth \[1, 3\]: a fixed stage has one depth; write \[3, 3\]"):
        load_space(path)
    path.write_text(TEXT.replace("depth: [1, 1]", "depth: [3, 3]", 1))
    assert sum(layer.stage == 2 for layer in load_space(path).layers()) == 3


def test_a_space_without_anything_to_search(tmp_path) -> None:
    lines = TEXT.splitlines(keepends=True)
    kept = [line for line in lines if not any(f"{{stage: {n}," in line for n in range(3, 9))]
    path = tmp_path / "mine.yaml"
    path.write_text("".join(kept))
    with pytest.raises(UserError, match="every stage is fixed: nothing to search"):
        load_space(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("tfnas", "did you mean 'tf-nas'"), ("missing.yaml", "there is no such file"), ("", "unknown name")],
)
def test_an_unknown_space_is_one_line(name, words) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_space(name)
    assert "\n" not in str(caught.value)


def test_a_folder_or_binary_file_is_one_line(tmp_path) -> None:
    folder, binary = tmp_path / "folder.yaml", tmp_path / "binary.yaml"
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (folder, binary):
        with pytest.raises(UserError) as caught:
            load_space(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_every_shipped_file_is_named_after_its_space() -> None:
    assert shipped_spaces() == ["mobilenet-v2", "tf-nas", "tf-nas-small-images", "tf-nas-tiny", "tf-nas-wose"]
    assert all(load_space(name).name == name == Path(name).stem for name in shipped_spaces())


@pytest.mark.parametrize("name", ["tf-nas", "tf-nas-wose", "tf-nas-small-images", "mobilenet-v2"])
@pytest.mark.parametrize("multiple", [2, 8, 16])
def test_a_space_at_multiples_has_those_of_its_widths_alone(name, multiple) -> None:
    every, some = load_space(name), load_space(f"{name}@{multiple}")
    assert (some.name, some.width_multiple, every.width_multiple) == (f"{name}@{multiple}", multiple, 1)
    assert some.digest != every.digest
    for layer in every.layers():
        for one, other in zip(every.candidates, some.candidates, strict=True):
            widths = list(other.widths(layer.in_channels))
            assert widths == [width for width in one.widths(layer.in_channels) if width % multiple == 0]
            initial = one.initial_width(layer.in_channels)
            assert other.initial_width(layer.in_channels) in widths
            assert abs(other.initial_width(layer.in_channels) - initial) == min(abs(w - initial) for w in widths)


def test_a_multiple_in_a_file_is_that_of_the_name(tmp_path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(TEXT.replace("name: tf-nas", "name: own\nwidth_multiple: 8", 1))
    assert dataclasses.replace(load_space(path), name="tf-nas@8") == load_space("tf-nas@8")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tf-nas@", "'tf-nas@' has no multiple of channels after @; write tf-nas@8, for example"),
        ("tf-nas@0", "'tf-nas@0' has no multiple of channels after @"),
        ("tf-nas@2.5", "'tf-nas@2.5' has no multiple of channels after @"),
        ("tf-nass@8", "did you mean 'tf-nas'"),
        ("tf-nas-tiny@24", "fewer than two multiples of 24 .* choose a smaller width_multiple"),
    ],
)
def test_a_multiple_that_cannot_be_is_refused(name, said) -> None:
    with pytest.raises(UserError, match=said):
        load_space(name)
