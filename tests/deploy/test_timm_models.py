"""timm builds the published networks, with the methods its scripts call."""

from __future__ import annotations

import pytest
import torch

from tfnas.deploy import register_with_timm
from tfnas.runtime.errors import UserError
from tfnas.space import build_network, zoo

timm = pytest.importorskip("timm")


def test_the_twelve_are_listed_once() -> None:
    names = register_with_timm()
    assert register_with_timm() == names
    assert sorted(names) == timm.list_models("tf_nas_*")
    assert names == [name.lower().replace("-", "_") for name in zoo.names()]


@pytest.mark.parametrize("name", ["TF-NAS-D", "TF-NAS-MBV2-B"])
def test_it_is_our_network(name) -> None:
    register_with_timm()
    model = timm.create_model(name.lower().replace("-", "_"), num_classes=7, drop_rate=0.2, drop_path_rate=0.1)
    ours = build_network(zoo.load(name), 7, 0.2, 0.1)
    ours.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for made, same in ((model.eval(), ours.eval()), (model.train(), ours.train())):
        torch.manual_seed(1)
        one = made(images)
        torch.manual_seed(1)
        assert torch.equal(one, same(images))


def test_what_timms_scripts_call() -> None:
    register_with_timm()
    model = timm.create_model("tf_nas_d", num_classes=7).eval()
    images = torch.randn(1, 3, 64, 64)
    features = model.forward_features(images)
    assert torch.equal(model.forward_head(features), model(images))
    assert model.forward_head(features, pre_logits=True).shape == (1, model.num_features)
    model.reset_classifier(3)
    assert model(images).shape == (1, 3) and model.get_classifier().out_features == model.num_classes == 3
    assert timm.data.resolve_model_data_config(model)["mean"] == (0.485, 0.456, 0.406)


def test_what_there_is_not_is_said() -> None:
    register_with_timm()
    for options, words in (({"pretrained": True}, "no weights"), ({"in_chans": 1}, "in_chans=3")):
        with pytest.raises(UserError, match=words):
            timm.create_model("tf_nas_a", **options)
