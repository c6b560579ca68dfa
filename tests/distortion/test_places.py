"""Where a distance tells places apart, rows and positions count by what the network feels of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fewer.data.samples import as_samples
from fewer.distortion.detection import DetectionDistance
from fewer.distortion.outputs import Reference
from fewer.distortion.places import felt_places
from fewer.engine.apply import apply_options
from fewer.engine.felt import places_of
from fewer.engine.options import unit_options
from fewer.engine.prepare import prepare
from fewer.engine.refit import refit
from fewer.engine.sense import row_sensitivity
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.layers import find_layers
from fewer.models.matching import match
from fewer.models.running import call


class Maps(nn.Module):
    """A tiny head: features of cells to a confidence and a place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hm, self.center = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 1, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.first(x).relu()
        return {"hm": self.hm(x), "center": self.center(x)}


def test_rows_that_an_activation_hides_are_ranked_where_places_are_told_apart() -> None:
    torch.manual_seed(0)
    settings = Settings(calibration=6, heldout=2, sensing=2, workers=1)
    weighed = {}
    for distance in (Reference, DetectionDistance):
        prepared = prepare(Maps().eval(), torch.randn(10, 2, 5, 5), settings, distance=distance)
        work = Work(prepared, settings)
        known, ranked = row_sensitivity(work, prepared.model)
        assert set(known) == {"first", "hm", "center"}
        weighed[distance] = set(ranked)
    assert "first" not in weighed[Reference] and weighed[DetectionDistance] == {"first", "hm", "center"}


def test_positions_count_by_the_squared_gradient_there() -> None:
    """A cell whose output is multiplied by 3 counts nine times as much as one that is multiplied by 1."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * torch.tensor([0.0, 1.0, 3.0])

    net, x = Scaled().eval(), torch.randn(4, 2, 1, 3)
    layers = list(find_layers(net, match(net, x[:1]).units, x[:1]).values())
    found = felt_places(net, layers, list(x.split(2)), probes=1)["layer"]
    felt = (torch.cat(found).view(4, 3) - 0.2) / 0.8
    assert [len(one) for one in found] == [6, 6] and float(torch.cat(found).mean()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(felt[:, 0], torch.zeros(4)) and torch.allclose(felt[:, 2], 9 * felt[:, 1], rtol=1e-4)


def test_a_layer_that_is_called_twice_has_no_places() -> None:
    layer = nn.Linear(3, 3)
    net, x = nn.Sequential(layer, nn.Tanh(), layer), torch.randn(2, 3)
    layers = list(find_layers(net, match(net, x).units, x).values())
    assert felt_places(net, layers, [x]) == {}


class Half(DetectionDistance):
    """Counts the left half of the cells alone."""

    def __init__(self, outputs) -> None:
        left = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        left[..., :4] = True
        super().__init__([{**one, "occupied": left.expand(len(one["hm"]), 1, 8, 8)} for one in outputs])


def test_a_repair_serves_the_places_that_count(monkeypatch) -> None:
    """Inputs of the left half are related in one way, those of the right half in the opposite way."""
    torch.manual_seed(0)
    x = torch.randn(24, 2, 8, 8)
    x[:, 1, :, :4], x[:, 1, :, 4:] = 0.9 * x[:, 0, :, :4], -0.9 * x[:, 0, :, 4:]
    settings = Settings(calibration=16, heldout=4, sensing=4, workers=1, pattern="unstructured", sparsities=(0.5,))
    changes = {}
    for told in (True, False):
        monkeypatch.setattr(Half, "tells_places", told, raising=False)
        torch.manual_seed(1)
        prepared = prepare(Maps().eval(), x, settings, distance=Half)
        work = Work(prepared, settings)
        options = unit_options(prepared.matched.units, settings, ())
        chosen = {name: found[-1] if name == "first" else found[0] for name, found in options.items()}
        cheap, _ = apply_options(work, options, chosen)
        batches = [prepared.heldout]
        reference = prepared.reference(batches)
        changes[told] = float(reference.change(0, call(cheap, batches[0])).mean())
    assert changes[True] < 0.7 * changes[False]


def test_places_of_batches_are_those_of_their_samples() -> None:
    torch.manual_seed(0)
    settings = Settings(calibration=6, heldout=2, sensing=2, workers=1)
    prepared = prepare(Maps().eval(), torch.randn(10, 2, 5, 5), settings, distance=DetectionDistance)
    batches = [prepared.calibration[:4], prepared.calibration[4:]]
    found = places_of(prepared, settings, range(6), batches)
    assert found is not None and set(found) == {"first", "hm", "center"}
    assert all([len(one) for one in each] == [100, 50] for each in found.values())
    plain = prepare(Maps().eval(), torch.randn(10, 2, 5, 5), settings)
    assert places_of(plain, settings, range(6), batches) is None
    assert places_of(prepared, settings.model_copy(update={"compensation": "none"}), range(6), batches) is None


def test_a_repair_on_more_images_serves_the_same_places(monkeypatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 2, 8, 8)
    x[:, 1, :, :4], x[:, 1, :, 4:] = 0.9 * x[:, 0, :, :4], -0.9 * x[:, 0, :, 4:]
    settings = Settings(calibration=16, heldout=4, sensing=4, workers=1)
    changes = {}
    for told in (True, False):
        monkeypatch.setattr(Half, "tells_places", told, raising=False)
        torch.manual_seed(1)
        prepared = prepare(Maps().eval(), x[:20], settings, distance=Half)
        student = copy.deepcopy(prepared.model)
        masks = {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in prepared.layers.items()}
        masks["first"][:, 1] = False
        student.first.weight.data *= masks["first"]
        refit(prepared, settings, student, masks, dict.fromkeys(masks, "fp32"), as_samples(x[20:]))
        reference = prepared.reference([prepared.heldout])
        changes[told] = float(reference.change(0, call(student, prepared.heldout)).mean())
    assert changes[True] < 0.7 * changes[False]
