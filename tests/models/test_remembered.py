"""What a network makes of an input alone: made once while copies see the same inputs, anew otherwise, within bounds."""

from __future__ import annotations

import torch

from fewer.models.remembered import made_anew, remembered, remembering
from fewer.models.sparse import Sites, SparseSequential, SubMConv3d
from fewer.tasks.detect3d.networks import build_network, small_config
from fewer.tasks.detect3d.networks import detector as place


def made(inputs: tuple[torch.Tensor, ...], *more) -> bool:
    """Whether something had to be made."""
    count = []
    remembered(inputs, *more).once("a", lambda: count.append(1))
    return bool(count)


def test_values_and_what_else_matters_count():
    x = torch.arange(4.0)
    assert made((x,)) and made((x,))  # outside, all is made anew
    with remembering():
        assert made((x,))
        assert not made((x.clone(),))
        assert made((x + 1,)) and made((x.double(),)) and made((x[None],)) and made((x,), "grid") and made((x, x))
        with made_anew():
            assert made((x,))
        assert made((x.clone().requires_grad_(),)) and made((x.clone().requires_grad_(),))
        with remembering():  # within another one the same memory serves
            assert not made((x,))
    assert made((x,))


def test_what_was_used_longest_ago_goes_first():
    with remembering(3 * 4000):
        for i in (0, 1, 0, 2, 3, 0):
            remembered((torch.tensor(float(i)),)).once("a", lambda: torch.zeros(1000))
        assert made((torch.tensor(1.0),))
        assert not made((torch.tensor(0.0),))


def test_copies_of_a_detector_share_cells_rules_and_keypoints(monkeypatch):
    scans = tuple(torch.rand(n, 4, generator=torch.Generator().manual_seed(n)) * 20 for n in (900, 700))
    for network in ("second", "pv-rcnn", "pointpillars"):
        first, other = (build_network(small_config(network, ("Car",))).eval() for _ in range(2))
        with torch.no_grad():
            wanted = [net(*scans) for net in (first, other)]
        calls = []
        real = place.cells_of
        monkeypatch.setattr(place, "cells_of", lambda *a, real=real, calls=calls: calls.append(1) or real(*a))
        with remembering():
            with torch.inference_mode():
                got = [first(*scans)]
            got.append(other(*scans))  # with gradients, on what was made without
            sum(v.float().sum() for v in got[1].values()).backward()
        assert len(calls) == 1
        for a, b in zip(got, wanted, strict=True):
            assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-5) for k in b)
        monkeypatch.setattr(place, "cells_of", real)


def test_a_training_remembers_nothing():
    net = build_network(small_config("second", ("Car",))).train()
    scan = torch.rand(300, 4) * 20
    with remembering():
        assert net._facts((scan,)) is not net._facts((scan,))
        assert net.eval()._facts((scan,)) is net._facts((scan,))


def test_rules_made_without_gradients_serve_with_them():
    where = torch.tensor([[0, 0, 0, i] for i in range(4)])
    layer, rules = SubMConv3d(2, 2, 3, key="a"), {}
    with torch.inference_mode():
        SparseSequential(layer)(Sites(torch.ones(4, 2), where, (1, 1, 4), 1, rules))
    out = SparseSequential(layer)(Sites(torch.ones(4, 2, requires_grad=True), where, (1, 1, 4), 1, rules))
    out.features.sum().backward()
    assert layer.weight.grad is not None
