"""Every network of the table: shapes, gradients, parameters; published weights load strictly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.classify.networks import NETWORKS, ResidualNet, build
from tests.support.shared_data import shared_data

MILLIONS = {"resnet20": 0.270, "resnet32": 0.464, "resnet56": 0.853, "vgg16-bn": 14.7, "mobilenet-v2": 2.24}
MILLIONS |= {"vgg16-bn-narrow": 0.924, "vit-tiny": 0.459}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name: str) -> None:
    row = NETWORKS[name]
    assert row.note and row.paper
    net = build(name, num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32)
    scores = net(images)
    assert scores.shape == (2, 7) and bool(torch.isfinite(scores).all())
    scores.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    if name in MILLIONS:
        ten = sum(p.numel() for p in build(name, num_classes=10).parameters())
        assert ten / 1e6 == pytest.approx(MILLIONS[name], rel=0.005)


def test_an_unknown_network_has_a_nearest_one() -> None:
    with pytest.raises(FewerError, match="did you mean 'resnet"):
        build("resnet21")


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_published_weights_load_strictly(name: str, blocks: int) -> None:
    with np.load(shared_data(f"cifar_resnets/{name}.npz"), allow_pickle=False) as found:
        state = {key: torch.from_numpy(found[key]) for key in found.files if key != "best_prec1"}
    net = ResidualNet(blocks)
    net.load_state_dict(state, strict=True)
    assert net.linear.weight.shape == (10, 64)


def test_published_resnet20_sees_what_is_in_photos() -> None:
    from fewer.data.preprocess import Preprocess
    from fewer.models.spec import LoadedModel
    from fewer.tasks.classify.evaluate import evaluate_rows
    from fewer.tasks.classify.model import map_classes, open_classifier
    from fewer.tasks.classify.readers import open_data

    data = open_data(shared_data("cifar10/test.npz"))
    with np.load(shared_data("cifar_resnets/resnet20.npz"), allow_pickle=False) as found:
        state = {key: torch.from_numpy(found[key]) for key in found.files if key != "best_prec1"}
    net = ResidualNet(3).eval()
    net.load_state_dict(state)
    model = open_classifier(LoadedModel(net, "resnet20", {}, Preprocess((3, 32, 32), crop=1.0)))
    rows = np.random.default_rng(0).permutation(len(data))[:200]
    result = evaluate_rows(net, model, data, rows, map_classes(data, model))
    # all 10,000 of these files, which are JPEG, give 0.8103
    assert 0.74 < result.top1 < 0.88 and result.doubt == ""
