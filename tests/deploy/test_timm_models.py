"""timm builds the published networks, with all that its own have: the classifier, the backbone, what programs do."""

from __future__ import annotations

import copy
import pickle
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from tfnas.deploy import register_with_timm
from tfnas.jobs.errors import UserError
from tfnas.space import build_network, zoo
from tfnas.train.weights import save_weights

timm = pytest.importorskip("timm")

CLASSES = 7
CHANNELS = 1280  # before the classifier, in all twelve
REDUCTIONS = [2, 4, 8, 16, 32]
every_network = pytest.mark.parametrize("name", zoo.names())
EXTRACTORS = [(extractor, name) for extractor in ("list", "getter") for name in zoo.names()]
EXTRACTORS += [(extractor, "TF-NAS-D") for extractor in ("dict", "hook", "fx")]


@cache
def ours(name: str) -> nn.Module:
    """Our network with statistics that let differences be seen; not to be changed."""
    torch.manual_seed(0)
    network = build_network(zoo.load(name), CLASSES)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


def in_timm(name: str, **options) -> nn.Module:
    register_with_timm()
    return timm.create_model(name.lower().replace("-", "_"), **options).eval()


def with_our_weights(name: str, **options) -> nn.Module:
    weights = {"state_dict": ours(name).state_dict(), "num_classes": CLASSES}
    return in_timm(name, pretrained=True, pretrained_cfg_overlay=weights, **options)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def steps(name: str, images: torch.Tensor) -> list[torch.Tensor]:
    """What each block of our network gives."""
    found = [ours(name).stem(images)]
    for block in ours(name).blocks:
        found.append(block(found[-1]))
    return found[1:]


def assert_close(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_twelve_are_listed_once() -> None:
    names = register_with_timm()
    assert register_with_timm() == names
    assert sorted(names) == timm.list_models("*tf_nas*") == timm.list_models("tf_nas_*", name_matches_cfg=True)
    assert names == [name.lower().replace("-", "_") for name in zoo.names()]
    assert timm.list_models("*tf_nas*", pretrained=True) == []


@every_network
def test_it_is_our_network(name, images) -> None:
    rates = {"drop_rate": 0.2, "drop_path_rate": 0.1}
    torch.manual_seed(3)
    model = in_timm(name, num_classes=CLASSES, **rates)
    torch.manual_seed(3)
    fresh = build_network(zoo.load(name), CLASSES, *rates.values())
    assert list(model.state_dict()) == list(fresh.state_dict())
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in model.state_dict().items())
    model.load_state_dict(ours(name).state_dict())
    fresh.load_state_dict(ours(name).state_dict())
    for made, same in ((model.eval(), fresh.eval()), (model.train(), fresh.train())):
        torch.manual_seed(1)
        one = made(images)
        torch.manual_seed(1)
        assert torch.equal(one, same(images))


@every_network
def test_without_classes_it_gives_pooled_features(name, images) -> None:
    model = with_our_weights(name)
    features = model.forward_features(images)
    assert features.shape == (2, CHANNELS, 2, 2) and model.num_features == model.head_hidden_size == CHANNELS
    assert torch.equal(model.forward_head(features), model(images)) and torch.equal(model(images), ours(name)(images))
    pooled = model.forward_head(features, pre_logits=True)
    assert_close(pooled, features.mean((2, 3)))
    made = with_our_weights(name, num_classes=0)
    model.reset_classifier(0)
    for network in (model, made):
        assert torch.equal(network(images), pooled) and network.num_classes == 0
        assert not list(network.get_classifier().parameters())
    model.reset_classifier(0, "")
    assert torch.equal(model(images), features)
    assert torch.equal(with_our_weights(name, num_classes=0, global_pool="")(images), features)
    model.reset_classifier(3, "avg")
    assert model(images).shape == (2, 3) and model.get_classifier().out_features == model.num_classes == 3


@every_network
def test_its_configuration_fits_it(name) -> None:
    model = in_timm(name)
    config, state = model.default_cfg, model.state_dict()
    assert state[f"{config['classifier']}.weight"].shape == (config["num_classes"], CHANNELS)
    assert state[f"{config['first_conv']}.weight"].shape[1] == config["input_size"][0]
    assert [size // REDUCTIONS[-1] for size in config["input_size"][1:]] == list(config["pool_size"])
    assert timm.data.resolve_model_data_config(model)["mean"] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(("extractor", "name"), EXTRACTORS)
def test_it_is_a_backbone(extractor, name, images) -> None:
    expected = steps(name, images)
    for indices, levels in (((0, 1, 2, 3, 4), range(5)), ((1, -2), (1, 3))):
        backbone = with_our_weights(name, features_only=True, feature_cls=extractor, out_indices=indices)
        info = backbone.feature_info
        features = backbone(images)
        features = list(features.values()) if isinstance(features, dict) else features
        assert info.reduction() == [REDUCTIONS[level] for level in levels]
        assert [64 // reduction for reduction in info.reduction()] == [f.shape[-1] for f in features]
        assert info.channels() == [f.shape[1] for f in features]
        for module, found in zip(info.module_name(), features, strict=True):
            assert_close(found, expected[int(module.removeprefix("blocks."))])


@every_network
def test_its_intermediate_features(name, images) -> None:
    model = with_our_weights(name)
    expected = [steps(name, images)[info["block"]] for info in model.feature_info]
    final, features = model.forward_intermediates(images)
    assert torch.equal(final, model.forward_features(images))
    assert_close(features, expected)
    last_two = model.forward_intermediates(images, indices=2, intermediates_only=True)
    assert_close(last_two, expected[-2:])
    stopped, (feature,) = model.forward_intermediates(images, indices=[-3], stop_early=True)
    assert torch.equal(stopped, feature)
    assert_close(feature, expected[2])
    assert model.prune_intermediate_layers([1, -3]) == [1, 2]
    assert_close(model.forward_intermediates(images, [1, 2], intermediates_only=True), expected[1:3])
    assert_close(model(images), expected[2])
    assert model.num_features == expected[2].shape[1]


@every_network
def test_a_smaller_output_stride_keeps_weights_and_resolution(name, images) -> None:
    for stride in (8, 16):
        model, images = with_our_weights(name, output_stride=stride).double(), images.double()
        features = model.forward_features(images)
        assert features.shape == (2, CHANNELS, 64 // stride, 64 // stride)
        assert [info["reduction"] for info in model.feature_info] == [min(r, stride) for r in REDUCTIONS]
        if not any(block.se_channels for block in zoo.load(name).blocks):  # SE's means see more places
            coarse = features[:, :, :: 32 // stride, :: 32 // stride]
            assert_close(coarse, with_our_weights(name).double().forward_features(images))


@every_network
def test_fx_and_torchscript(name, images) -> None:
    model = with_our_weights(name)
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(images), model(images))
    assert_close(torch.jit.script(model)(images), model(images))
    if name == "TF-NAS-D":  # slow, and the same code in all twelve
        assert_close(torch.jit.script(traced)(images), model(images))


@every_network
def test_checkpointing_keeps_outputs_and_gradients(name, images) -> None:
    plain = with_our_weights(name, drop_path_rate=0.3).train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    outputs = []
    for model in (plain, saving):
        torch.manual_seed(2)
        outputs.append(model(images))
        outputs[-1].square().mean().backward()
    assert torch.equal(*outputs)
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert one.grad is not None
        assert_close(one.grad, other.grad)
    saving.eval().load_state_dict(ours(name).state_dict())
    assert_close(saving.forward_intermediates(images)[0], with_our_weights(name).forward_features(images))
    saving.set_grad_checkpointing(False)
    assert not saving.grad_checkpointing


@every_network
def test_other_input_channels(name, images) -> None:
    gray = with_our_weights(name, in_chans=1)
    assert_close(gray(images[:, :1]), ours(name)(images[:, :1].expand(-1, 3, -1, -1)))
    many = in_timm(name, in_chans=5, features_only=True)
    assert [f.shape[1] for f in many(torch.randn(1, 5, 32, 32))] == many.feature_info.channels()


@every_network
def test_poolings(name, images) -> None:
    features = with_our_weights(name).forward_features(images)
    mean, largest = features.mean((2, 3)), features.amax((2, 3))
    expected = {"max": largest, "avgmax": (mean + largest) / 2, "catavgmax": torch.cat((mean, largest), 1)}
    for pooling, pooled in expected.items():
        model = with_our_weights(name, num_classes=0, global_pool=pooling)
        assert_close(model(images), pooled)
        model.reset_classifier(CLASSES)
        assert model(images).shape == (2, CLASSES) and model.head_hidden_size == pooled.shape[1]


@every_network
def test_layer_decay_knows_every_weight(name) -> None:
    model = in_timm(name)
    for coarse, last_block in ((False, len(model.blocks)), (True, len(REDUCTIONS))):
        groups = timm.models.group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert set(groups) == {key for key, _ in model.named_parameters()}
        assert groups["stem.conv.weight"] == 0
        blocks = [groups[f"blocks.{index}.project.conv.weight"] for index in range(len(model.blocks))]
        assert blocks == sorted(blocks) and set(blocks) == set(range(1, last_block + 1))
        assert groups["head.conv.weight"] == last_block or groups["head.conv.weight"] > blocks[-1]


@pytest.mark.parametrize("backbone", [False, True])
def test_what_programs_do_with_a_network(backbone, images) -> None:
    model, images = with_our_weights("TF-NAS-D", features_only=backbone).double(), images.double()
    expected = model(images)
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(same(images), expected)
    assert_close(torch.export.export(model, (images,)).module()(images), expected)
    assert_close(torch.compile(model, fullgraph=True, backend="eager")(images), expected)
    columns = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert_close(columns(images.contiguous(memory_format=torch.channels_last)), expected)


def test_fx_in_training(images) -> None:
    model = with_our_weights("TF-NAS-D", drop_rate=0.2, drop_path_rate=0.5).train()
    traced = torch.fx.symbolic_trace(model)
    torch.manual_seed(4)
    found = traced(images)
    torch.manual_seed(4)
    assert_close(found, model(images))


def test_weights_from_a_file(tmp_path, images) -> None:
    name, file = "TF-NAS-D", tmp_path / "weights.pt"
    save_weights(ours(name), file)
    assert torch.equal(in_timm(name, num_classes=CLASSES, checkpoint_path=file)(images), ours(name)(images))
    overlay = {"file": str(file)}
    backbone = in_timm(name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay)
    assert_close(backbone(images)[-1], steps(name, images)[-1])


def test_a_fresh_classifier_is_as_the_network() -> None:
    model = in_timm("TF-NAS-D", dtype=torch.float64)
    model.reset_classifier(3)
    new = model.get_classifier()
    assert new.weight.dtype == torch.float64 and not new.training and not functional.relu(new.bias.abs()).any()
    assert in_timm("TF-NAS-D", device="meta").stem.conv.weight.is_meta


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pretrained": True}, "TF-NAS-A has no weights to download.*checkpoint_path=FILE"),
        ({"pretrained": True, "features_only": True}, "no weights to download"),
        ({"num_classes": -1}, "num_classes is -1; expected 0 or more"),
        ({"in_chans": 0}, "in_chans is 0; expected 1 or more"),
        ({"output_stride": 4}, "output_stride is 4; expected 8, 16 or 32"),
        ({"global_pool": "", "num_classes": 5}, "5 classes need pooled features"),
        ({"features_only": True, "feature_cls": "getter", "out_indices": (7,)}, "this network has 5 features"),
    ],
)
def test_what_there_is_not_is_said(options, words) -> None:
    with pytest.raises(UserError, match=words) as error:
        in_timm("TF-NAS-A", **options)
    assert "\n" not in str(error.value)


def test_an_option_that_nothing_uses_is_refused() -> None:
    with pytest.raises(TypeError, match="img_size"):
        in_timm("TF-NAS-A", img_size=64)
