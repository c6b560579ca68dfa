"""What detectors are taught: targets that are decoded again must give the truth back, with an AP of 100."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fewer.tasks.detect3d.augment import only
from fewer.tasks.detect3d.frames import Frame, Objects
from fewer.tasks.detect3d.metrics.bands import count_bands
from fewer.tasks.detect3d.metrics.kitti_ap import kitti_ap
from fewer.tasks.detect3d.networks import Detector, build_network, small_config
from fewer.tasks.detect3d.networks.anchors import anchor_grid, encode_boxes
from fewer.tasks.detect3d.networks.config import published_config, short_config
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.training import fitted_anchor


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    streets = Streets(SENSORS["hdl-64"].ahead(45).thinned(2), seed=1)
    return [streets.frame(i) for i in range(8)]


def taught(frame: Frame, net: Detector) -> tuple[Tensor, Tensor]:
    frame = only(frame, net.config.classes, net.config.reach, 1)
    labels = torch.tensor([net.config.classes.index(name) for name in frame.objects.classes], dtype=torch.long)
    return torch.from_numpy(frame.objects.boxes.astype("float32")), labels


def inside(objects: Objects, net: Detector) -> Objects:
    low, high = np.array(net.config.reach[:2]), np.array(net.config.reach[3:5])
    return objects.take(((objects.boxes[:, :2] >= low) & (objects.boxes[:, :2] < high)).all(1))


def anchor_answers(net: Detector, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Head tensors of a network that has learnt its targets to the last bit."""
    head = net.dense_head
    wanted, target = head.assign(boxes, labels)
    codes = encode_boxes(target, head.anchors.reshape(-1, 7))
    codes[wanted <= 0] = 0
    turn = (target[:, 6] - np.pi / 4) % (2 * np.pi)
    ways = F.one_hot((turn >= np.pi).long(), 2).float()
    scores = F.one_hot(wanted.clamp(min=0), len(net.config.classes) + 1)[:, 1:] * 16.0 - 8
    side = head.anchors.shape[:2]
    maps = {"cls_preds": scores, "box_preds": codes, "dir_cls_preds": ways}
    return {name: rows.reshape(1, *side, -1).permute(0, 3, 1, 2) for name, rows in maps.items()}


def centre_answers(net: Detector, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
    x, y = net.config.head_grid
    count = len(net.config.classes)
    heat, wanted, _, cell = net.dense_head._targets(torch.zeros(1, count, y, x), [boxes], [labels], list(range(count)))
    raw = {"0.hm": torch.where(heat == 1, 8.0, -8.0)}
    rows = torch.zeros(8, y * x)
    rows[:, cell] = wanted.T
    for name, part in zip(("center", "center_z", "dim", "rot"), rows.split((2, 1, 3, 2)), strict=True):
        raw[f"0.{name}"] = part.view(1, -1, y, x)
    return raw


@pytest.mark.parametrize("make", [small_config, short_config])
@pytest.mark.parametrize("network", ["pointpillars", "second", "centerpoint-pillar", "centerpoint"])
def test_targets_decode_to_the_truth(frames, network, make):
    net = build_network(make(network, ("Car", "Pedestrian", "Cyclist")))
    answers = anchor_answers if net.config.has_anchors else centre_answers
    found = [net.objects(answers(net, *taught(frame, net)))[0] for frame in frames]
    for name in net.config.classes:
        bands = count_bands([inside(f.objects, net) for f in frames], found, name)
        assert sum(b.objects for b in bands) and sum(b.missed + b.spurious for b in bands) == 0, name
    # by the rules of KITTI few objects cannot fill forty steps of recall; the cars can
    scores = kitti_ap([f.objects for f in frames], found, "Car", difficulty="hard", reach=net.config.reach)
    assert scores["R40"] == pytest.approx(100.0) and scores["objects"] >= 40


def test_priors_stand_amid_their_cells():
    grid = anchor_grid(short_config("pointpillars", ("Car",)))
    assert torch.allclose(grid[0, :2, 0, :2], torch.tensor([[0.32, -17.6], [0.96, -17.6]]))
    edges = anchor_grid(published_config("pointpillars"))
    assert edges[0, 0, 0, 0] == 0 and edges[-1, -1, 0, 0] == pytest.approx(69.12)


def test_most_cars_have_several_priors(frames):
    net = build_network(short_config("pointpillars", ("Car",)))
    counts = [(int((net.dense_head.assign(*taught(f, net))[0] > 0).sum()), len(taught(f, net)[0])) for f in frames]
    assert sum(c for c, _ in counts) > 2 * sum(n for _, n in counts)


def test_a_prior_follows_the_data():
    usual = small_config("pointpillars", ("Car",)).anchors[0]
    boxes = np.tile([9, 0, -0.9, 4.2, 1.7, 1.5, 0.3], (20, 1))
    fitted = fitted_anchor(usual, "Car", [Objects(boxes, ("Car",) * 20)])
    assert fitted.size == (4.2, 1.7, 1.5) and fitted.bottom == -1.65 and fitted.matched == usual.matched
    few = fitted_anchor(usual, "Car", [Objects(boxes[:19], ("Car",) * 19)])
    assert few.size == usual.size and few.bottom == -1.65  # sizes of a few say little, the road is that of all
    assert fitted_anchor(usual, "Car", [Objects(boxes[:2], ("Van",) * 2)]) == usual


def test_short_networks_keep_up_with_their_statistics():
    for network, momentum in ((small_config("second"), 0.1), (published_config("second"), 0.01)):
        norms = [m for m in build_network(network).modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms and all(norm.momentum == momentum for norm in norms)


def test_the_largest_point_of_a_pillar():
    config = small_config("pointpillars", ("Car",))
    net = build_network(config)
    torch.manual_seed(0)
    scan = torch.rand(400, 4) * torch.tensor([20.0, 20, 2, 1])
    from fewer.tasks.detect3d.networks.cells import cells_of

    cells = cells_of((scan,), config)
    values = torch.rand(len(cells.points), 5, requires_grad=True)
    ours = torch.segment_reduce(values, "max", lengths=cells.counts, axis=0, unsafe=True)
    plain = torch.zeros(len(cells.where), 5).scatter_reduce(
        0, cells.cell[:, None].expand(-1, 5), values, "amax", include_self=False
    )
    assert torch.equal(ours, plain)
    weights = torch.rand_like(ours)
    (first,) = torch.autograd.grad((ours * weights).sum(), values)
    (second,) = torch.autograd.grad((plain * weights).sum(), values)
    assert torch.allclose(first, second)
    assert net.vfe(cells).shape == (len(cells.where), config.pillar)
