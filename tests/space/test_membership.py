"""Choices in a space make members of the space; whatever is changed in one makes it no member."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.space import load_space, zoo
from tfnas.space.membership import assemble, matching_candidates, violations
from tfnas.space.space import shipped_spaces


@settings(max_examples=50)
@given(name=st.sampled_from(shipped_spaces()), seed=st.integers(0, 2**32 - 1))
def test_whatever_is_assembled_is_a_member(draw_member, name, seed) -> None:
    space = load_space(name)
    architecture = draw_member(space, np.random.default_rng(seed))
    assert list(violations(architecture, space)) == []
    assert architecture.space == name and architecture.stem == space.stem and architecture.head == space.head
    layers = {(layer.stage, layer.position): layer for layer in space.layers()}
    position = 0
    for i, (size, block) in enumerate(architecture.block_resolutions(space.resolution)):
        position = position + 1 if i and block.stage == architecture.blocks[i - 1].stage else 1
        layer = layers[block.stage, position]
        assert (layer.resolution, layer.in_channels, layer.stride) == (size, block.in_channels, block.stride)


@settings(max_examples=50)
@given(name=st.sampled_from(shipped_spaces()), seed=st.integers(0, 2**32 - 1))
def test_the_chosen_candidate_is_found_again(name, seed) -> None:
    space, random = load_space(name), np.random.default_rng(seed)
    candidate = space.candidates[random.integers(len(space.candidates))]
    stage = space.searchable_stages[0]
    width = int(random.integers(*candidate.width_range(stage.in_channels), endpoint=True))
    choices = {spec.stage: [(space.candidates[0], 3 * spec.in_channels)] for spec in space.searchable_stages}
    architecture = assemble(space, "x", choices | {stage.stage: [(candidate, width)]})
    block = next(block for block in architecture.blocks if block.stage == stage.stage)
    assert candidate in matching_candidates(block, space)


def test_the_deepest_and_the_shallowest_network() -> None:
    space = load_space("tf-nas")
    for depth, blocks in ((1, 7), (4, 19)):
        layers = {s.stage: [(space.candidates[0], 3 * s.out_channels)] * min(depth, s.max_depth) for s in space.stages}
        assert len(assemble(space, "x", layers).blocks) == blocks


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": 7}, "no candidate has kernel 7"),
        ({"expand_channels": 47}, "expand_channels 47 at 24"),
        ({"se_channels": 5}, "se_channels 5"),
        ({"act": "relu6"}, "in_channels, out_channels, act, stride"),
        ({"stage": 2}, "stage 2 has 2 layers"),
    ],
)
def test_a_changed_block_is_no_member(change, words) -> None:
    architecture = zoo.load("TF-NAS-A")
    blocks = list(architecture.blocks)
    blocks[2] = dataclasses.replace(blocks[2], **change)
    found = list(violations(dataclasses.replace(architecture, blocks=tuple(blocks)), load_space("tf-nas")))
    assert any(words in line for line in found), found


def test_another_stem_head_or_fixed_stage_is_no_member() -> None:
    architecture, space = zoo.load("TF-NAS-A"), load_space("tf-nas")
    stem = dataclasses.replace(architecture, stem=dataclasses.replace(architecture.stem, out_channels=16))
    head = dataclasses.replace(architecture, head=dataclasses.replace(architecture.head, act="relu"))
    assert "stem is" in next(violations(stem, space)) and "head is" in next(violations(head, space))
    wose = list(violations(zoo.load("TF-NAS-A-wose"), space))
    assert len(wose) == 1 and "stage 2, layer 1: is not the fixed operation" in wose[0]
