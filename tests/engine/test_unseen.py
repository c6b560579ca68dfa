"""What planning knows of images that it has not seen."""

import numpy as np
import torch
from torch import nn

from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.engine.plan import choose
from fewer.engine.prepare import prepare
from fewer.engine.sense import sense_curves, unseen
from fewer.engine.settings import Settings
from fewer.engine.work import Work

LADDER = (Option(), Option("unstructured", 0.5), Option("unstructured", 0.9))


def test_a_cut_that_looked_free_is_charged_for_the_weights_that_it_takes():
    """Layer a looks free at half, and loses much weight there; layer b costs a little, and loses next to nothing."""
    seen = {"a": np.array([0.0, 1e-14, 0.8]), "b": np.array([0.0, 1e-4, 0.8])}
    lost = {"a": [0.0, 0.3, 0.9], "b": [0.0, 0.002, 0.9]}
    curves = []
    for name in "ab":
        doubt = unseen(seen[name], lost[name], lost[name], 16)
        cost = {"weights": [100, 50, 10]}
        curves.append(Curve(Unit(name, "linear", (10, 10)), LADDER, cost, seen[name] + doubt, {"unseen": doubt}))
    both, half = CurveSet(tuple(curves)), [Budget("weights", 0.75, True)]
    assert choose(both, half, "bold").choice.tolist() == [1, 0]
    assert choose(both, half, "dp").choice.tolist() == [0, 1]


def test_more_images_leave_less_doubt_and_inputs_that_spoke_leave_none():
    few, many = (unseen(np.array([0.0, 0.5]), [0.0, 0.5], [0.0, 0.5], n)[1] for n in (8, 80))
    assert few == 10 * many > 0
    assert not unseen(np.array([0.0, 0.5]), [0.0, 0.5], [0.0, 0.0], 8).any()


def test_a_dead_channel_is_charged_on_both_sides_and_living_ones_next_to_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    net[0].bias.data[:] = torch.tensor([1.0, 1, 1, 1, 1, -100.0])  # the last one never fires
    net[2].weight.data = torch.tensor([1.0, 1, 1, 1, 1, 0.01]).repeat(3, 1)  # and is the first that goes
    settings = Settings(sparsities=(0.16, 0.5), estimator="measured", sensing=8)
    first, second = sense_curves(Work(prepare(net, torch.randn(32, 8), settings), settings)).curves.curves
    # the weights that make the dead output are silent, and so are those that read it
    assert first.scores["unseen"][1] > 0 and second.scores["unseen"][1] > 0
    net[0].bias.data[-1], net[2].weight.data[:] = 1.0, 1.0
    alive = sense_curves(Work(prepare(net, torch.randn(32, 8), settings), settings)).curves.curves
    for curve in alive:
        assert max(curve.scores["unseen"]) < 0.05 * curve.distortion.max()


def test_a_file_is_on_one_side_of_the_decision(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    prepared = prepare(net, tmp_path, Settings(calibration=48, sensing=8, heldout=4))
    deciding, judging = prepared.deciding, prepared.heldout
    assert len(deciding) >= 4 and len(judging) >= 1
    sets = [set(part.files) for part in (prepared.calibration, judging, deciding)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


def test_samples_of_a_tensor_are_shared_out():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    for count, parts in ((500, (128, 32, 16)), (64, (43, 14, 7)), (24, (16, 4, 4)), (16, (9, 3, 4))):
        whole = torch.randn(count, 4)
        prepared = prepare(net, whole, Settings())
        found = [prepared.calibration.tensor, prepared.heldout.tensor, prepared.deciding.tensor]
        assert tuple(map(len, found)) == parts, count
        assert len(torch.cat(found).unique(dim=0)) == sum(parts), "a sample stands in two parts"


def test_few_images_are_all_needed_for_the_repair():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    prepared = prepare(net, torch.randn(8, 4), Settings())
    assert prepared.deciding is None and len(prepared.calibration) == 6
