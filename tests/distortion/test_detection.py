"""The distortion of detectors against sums written out, and its random directions against the sum itself."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.distortion.detection import DetectionDistance, plain_detection


def heads(seed: int, samples: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(samples, *shape, generator=generator)  # noqa: E731
    occupied = torch.rand(samples, 1, 4, 5, generator=generator) > 0.3
    return {
        "cls_preds": draw(6, 4, 5),
        "box_preds": draw(14, 4, 5),
        "dir_cls_preds": draw(4, 4, 5),
        "occupied": occupied,
    }


def test_nothing_changed_and_nothing_left():
    dense = [heads(0), heads(1, 1)]
    distance = DetectionDistance(dense)
    assert distance.samples == 3
    assert distance.change(0, dense[0]).tolist() == [0, 0]
    # every tensor at its own mean loses its whole variance
    gone = [{k: v for k, v in one.items()} for one in dense]
    for name in ("cls_preds", "box_preds", "dir_cls_preds"):
        weights = [w[name].expand_as(d[name]) for w, d in zip(distance.weights, dense, strict=True)]
        total = sum(float(w.sum()) for w in weights)
        mean = sum(float((w * d[name]).sum()) for w, d in zip(weights, dense, strict=True)) / total
        for one in gone:
            one[name] = torch.full_like(one[name], mean)
    change = torch.cat([distance.change(i, one) for i, one in enumerate(gone)])
    assert change.mean() == pytest.approx(1, rel=1e-4)


def test_empty_cells_and_unsure_places_do_not_count():
    dense = heads(0)
    distance = DetectionDistance([dense])
    moved = {k: v.clone() for k, v in dense.items()}
    for name in ("cls_preds", "box_preds", "dir_cls_preds"):
        moved[name] += (~dense["occupied"]).float() * 5
    assert distance.change(0, moved).tolist() == [0, 0]
    sure = {**dense, "cls_preds": dense["cls_preds"].clone().fill_(-20)}
    sure["cls_preds"][:, 0, 1, 1] = 20
    sure["occupied"] = torch.ones_like(dense["occupied"])
    distance = DetectionDistance([sure])

    def box_change(row: int) -> float:
        other = {**sure, "box_preds": sure["box_preds"].clone()}
        other["box_preds"][:, :7, row, 1] += 1
        return float(distance.change(0, other).sum())

    assert box_change(1) > 1e4 * box_change(2)


def test_directions_estimate_the_change():
    dense = heads(0)
    distance = DetectionDistance([dense], locality=0.3)
    floats = [t for t in dense.values() if t.is_floating_point()]
    generator = torch.Generator().manual_seed(3)
    steps = [0.1 * torch.randn(t.shape, generator=generator) for t in floats]
    names = [n for n, t in dense.items() if t.is_floating_point()]
    moved = {n: dense[n] + s for n, s in zip(names, steps, strict=True)} | {"occupied": dense["occupied"]}
    wanted = float(distance.change(0, moved).sum())
    draws = []
    for _ in range(4000):
        directions = distance.directions(0, floats, generator)
        draws.append(sum(float((r * s).sum()) for r, s in zip(directions, steps, strict=True)) ** 2)
    assert sum(draws) / len(draws) == pytest.approx(wanted, rel=0.1)


def test_plain_form_and_part():
    dense = heads(0)
    distance = plain_detection([dense, heads(2)])
    other = heads(5)
    squares = sum((other[n] - dense[n]).square().flatten(1).mean(1) for n in distance.names)
    assert torch.allclose(distance.change(0, other) / distance.change(0, other)[0], (squares / squares[0]).double())
    part = distance.part(1, 2)
    assert part.samples == 2 and torch.equal(part.change(0, other), distance.change(1, other))


def test_second_stage_counts_where_proposals_are():
    dense = heads(0) | {"rcnn_cls": torch.zeros(2, 2, 4, 5), "rcnn_reg": torch.zeros(2, 14, 4, 5)}
    dense["rcnn_cls"][:, 1, 2, 2] = 3
    dense["rcnn_reg"][:, 7:, 2, 2] = torch.arange(7.0)
    distance = DetectionDistance([dense])
    other = {**dense, "rcnn_reg": dense["rcnn_reg"].clone()}
    other["rcnn_reg"][:, :7] += 1
    assert distance.change(0, other).tolist() == [0, 0]


def test_what_is_no_detector():
    with pytest.raises(FewerError, match="no detector"):
        DetectionDistance([{"logits": torch.zeros(1, 2)}])
    with pytest.raises(FewerError, match="NaN"):
        DetectionDistance([{"hm": torch.full((1, 1, 1, 1), float("nan"))}])


@pytest.mark.parametrize("plain", [False, True])
def test_the_error_of_a_training_is_the_change_that_is_judged(plain):
    batches = [heads(seed) for seed in range(3)]
    distance = DetectionDistance(batches, plain=plain)
    for number, dense in enumerate(batches):
        other = {k: v + 0.1 * torch.randn(v.shape) if v.is_floating_point() else v for k, v in dense.items()}
        other = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in other.items()}
        error = distance.part(1, 2).error(dense, other)  # of any batch, whatever the part
        assert float(error.detach()) == pytest.approx(float(distance.change(number, other).mean()), rel=1e-4)
        error.backward()
        assert all(bool(v.grad.abs().sum() > 0) for v in other.values() if v.is_floating_point())
