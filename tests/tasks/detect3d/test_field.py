"""Which part of a scan is looked at: as asked for, or moved to where the labelled objects stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.detect3d import training
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.field import fitted_reach, share_within, with_field
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.layouts import custom_label_text
from fewer.tasks.detect3d.networks import build_network, small_config
from fewer.tasks.detect3d.networks.config import NETWORKS
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.tasks.detect3d.training import fitted_anchor, plan_training

USUAL = (0.0, -23.04, -3.0, 46.08, 23.04, 1.0)


def boxes(x, y, z, height=1.5) -> np.ndarray:
    rows = np.zeros((len(x), 7))
    rows[:, 0], rows[:, 1], rows[:, 2] = x, y, z
    rows[:, 3:6] = 4, 1.8, height
    return rows


def folder(root, objects: np.ndarray, name: str = "Car"):
    """A set of OpenPCDet's layout with the same labels in every scan, and points in the middle of the boxes."""
    for part in ("points", "labels"):
        (root / part).mkdir(parents=True)
    for number in range(3):
        points = np.column_stack([objects[:, :3], np.full(len(objects), 0.5)]).astype(np.float32)
        np.save(root / "points" / f"scan {number}.npy", points)
        (root / "labels" / f"scan {number}.txt").write_text(custom_label_text(Objects(objects, (name,) * len(objects))))
    return root


def test_the_usual_field_stays_where_objects_stand_in_it():
    rng = np.random.default_rng(0)
    ahead = boxes(rng.uniform(5, 60, 40), rng.uniform(-15, 15, 40), np.full(40, -1.0))
    assert fitted_reach(USUAL, ahead) == USUAL
    assert fitted_reach(USUAL, boxes([-9.0], [0], [5])) == USUAL  # one object says nothing


@pytest.mark.parametrize(
    ("turn", "shift", "share"),
    [
        ((-1, 1, 1), (0, 0, 0), 0.9),  # all of them behind
        ((1, 1, 1), (0, 60, 0), 0.75),  # far to the left
        ((1, 1, 1), (0, 0, 1.9), 0.9),  # heights from the road
        ((1, 1, 1), (0, 0, -20), 0.9),  # a scanner on a roof
    ],
)
def test_it_moves_to_where_they_stand(turn, shift, share):
    rng = np.random.default_rng(1)
    moved = boxes(rng.uniform(5, 40, 60), rng.uniform(-15, 15, 60), rng.normal(-1, 0.1, 60))
    moved[:, :3] = moved[:, :3] * turn + shift
    assert share_within(moved, USUAL) < 0.95
    fitted = fitted_reach(USUAL, moved)
    assert share_within(moved, fitted) >= share
    assert all(low < high for low, high in zip(fitted[:3], fitted[3:], strict=True))


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("reach", [(-7.3, -10.0, -2.5, 11.1, 9.9, 3.5), (0.0, -5.0, -3.0, 13.0, 6.0, 1.0)])
def test_any_field_is_whole_cells_of_all_stages(network, reach):
    config = with_field(small_config(network, ("Car",)), reach, 0.4)
    asked, got = np.array(reach), np.array(config.reach)
    assert (got[:3] <= asked[:3] + 1e-6).all() and (got[3:] >= asked[3:] - 1e-6).all()
    net = build_network(config)
    scan = torch.rand(60, 4) * torch.tensor([8, 8, 2, 1]) + torch.tensor([0.5, -3, -2, 0])
    with torch.no_grad():
        raw = net(scan)
        net.detect(scan, score=0.0)
    assert raw["occupied"].shape[-2:] == (config.head_grid[1], config.head_grid[0])
    assert next(iter(raw.values())).shape[-2:] == raw["occupied"].shape[-2:]


def test_the_plan_says_how_much_is_seen(tmp_path):
    rng = np.random.default_rng(2)
    around = boxes(rng.uniform(-30, 30, 20), rng.uniform(-30, 30, 20), np.full(20, 0.8))
    data = folder(tmp_path / "a set", around, "Vehicle")
    plan = plan_training(data, TrainSettings(classes=("Vehicle",)))
    assert plan.config.reach[0] < -20 and plan.config.reach[3] > 20 and plan.within > 0.9
    assert plan.config.anchors[0].bottom == pytest.approx(0.05)
    assert any("of the labelled objects stand there" in line for line in plan.lines())
    own = plan_training(data, TrainSettings.of({"classes": "Vehicle", "reach": "-10,-10,-3,10,10,3", "cell": 0.5}))
    assert own.config.reach == (-10.0, -10.0, -3.0, 10.0, 10.0, 3.0) and own.config.grid == (40, 40, 1)
    with pytest.raises(FewerError, match="none of the 40 labelled objects stands where the network looks"):
        plan_training(data, TrainSettings.of({"classes": "Vehicle", "reach": "200,0,-3,210,10,3"}))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("1,2", "six numbers are needed"),
        ("a,b", "six numbers with commas"),
        ("10,0,0,1,9,9", "lower end first"),
    ],
)
def test_ranges_that_are_none(value, told):
    with pytest.raises(FewerError, match=told):
        TrainSettings.of({"reach": value})


def test_a_slip_of_units_takes_no_memory():
    with pytest.raises(FewerError, match="in metres"):
        with_field(small_config("pointpillars", ("Car",)), (0, -40_000, -3, 70_000, 40_000, 1))


def test_classes_with_commas():
    assert TrainSettings.of({"classes": ("Car, Van", "Truck")}).classes == ("Car", "Van", "Truck")


def test_classes_of_other_sets_take_a_prior_like_theirs():
    pedestrian, car, bus = small_config("pointpillars", ("pedestrian", "car", "bus")).anchors
    assert pedestrian.size[2] == 1.73 and car.size == bus.size and car.size[0] == 3.9


def test_a_class_without_a_known_size_takes_that_of_its_few_objects():
    box = np.array([[9.0, 0, 0, 11, 2.9, 3.4, 0]])
    for name, size in (("bus", (11.0, 2.9, 3.4)), ("car", (3.9, 1.6, 1.56))):
        prior = small_config("pointpillars", (name,)).anchors[0]
        fitted = fitted_anchor(prior, name, [Objects(box, (name,))] * 3)
        assert fitted.size == size and fitted.bottom == -1.7  # five are no sample of cars, whose size is known


def test_classes_without_an_object_are_told(tmp_path):
    data = open_data(folder(tmp_path / "set", boxes([5.0, 9, 12, 15, 20], [0, 1, 2, 3, 4], [0] * 5), "Vehicle"))
    lines = plan_training(data, TrainSettings(classes=("Vehicle", "Bus", "Tram"))).lines()
    assert "no Bus and no Tram in the labels that were looked at: that cannot be learnt" in lines
    with pytest.raises(FewerError, match="whose labels hold Vehicle; name what is to be learnt with --classes"):
        plan_training(data, TrainSettings())


def test_a_training_reads_what_does_not_fit(tmp_path):
    from fewer.tasks.detect3d.kept import KeptFrames

    data = open_data(folder(tmp_path / "set", boxes([5.0, 9], [0, 1], [0, 0])))
    all_held, some = KeptFrames(data, data.names), KeptFrames(data, data.names, most=data.points("scan 0").nbytes)
    assert [f.name for f in some] == [f.name for f in all_held] == ["scan 0", "scan 1", "scan 2"]
    assert some.bytes == data.points("scan 0").nbytes and some[0] is some[0] and some[2] is not some[2]
    assert np.array_equal(some[-1].points, all_held[-1].points) and len(some[1:]) == 2


@pytest.mark.parametrize(("apart", "kind"), [(range(3), "train"), (range(2, 3), "judge")])
def test_a_training_that_no_scan_can_serve_ends_before_its_first_step(tmp_path, monkeypatch, apart, kind):
    """Points far from the labels, as in the frame of another sensor: found out at once, not at the first validation."""
    data = folder(tmp_path / "set", boxes(np.arange(9.0, 29.0), np.zeros(20), np.full(20, -1.0)))
    (data / "ImageSets").mkdir()
    (data / "ImageSets/train.txt").write_text("scan 0\nscan 1\n")
    (data / "ImageSets/val.txt").write_text("scan 2\n")
    for number in apart:
        path = data / "points" / f"scan {number}.npy"
        np.save(path, np.load(path) + np.float32([900, 0, 0, 0]))
    monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("a step was made"))
    with pytest.raises(FewerError, match=f"scans that {kind} can be used; the first: no point of .* lies in the reach"):
        training.train(data, settings=TrainSettings(steps=1, classes=("Car",)))
