"""Inputs of any shape go the whole way: dictionaries, tuples, ragged lists, loaders; and a distance of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fewer
from fewer.core.errors import FewerError
from fewer.data.samples import ListSamples, TreeSamples
from fewer.distortion.outputs import Reference
from tests.support.nets import images, quick, small
from tests.support.other_device import other_device


class Two(nn.Module):
    """Two inputs; it stands in a module, so that it can be loaded again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(4, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.head((self.a(x) + self.b(mask)).relu())


class Cloud(nn.Module):
    """Points [samples, points, 4] of any number to five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 16), nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.a(x).relu()).relu().amax(1))


def made(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, M = rows(28, 8), rows(28, 4, seed=1)
CLOUDS = [np.random.default_rng(i).normal(size=(5 + i % 4, 4)) for i in range(28)]
SETTINGS = quick(additivity=2, baselines=("uniform",), measure=())


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def loader(batch: int = 5) -> DataLoader:
    return DataLoader(TensorDataset(X, M), batch_size=batch)


@pytest.mark.parametrize(
    "given",
    [
        lambda: {"x": X, "mask": M, "label": torch.zeros(28)},
        lambda: [{"x": X[i : i + 4], "mask": M[i : i + 4]} for i in range(0, 28, 4)],
        lambda: [{"x": X[i], "mask": M[i].numpy(), "label": 3} for i in range(28)],
        lambda: (X, M),
        loader,
        lambda: TreeSamples((X, M)),
    ],
)
def test_every_way_to_give_two_inputs_means_the_same(given):
    run = fewer.compress(made(Two), given(), "weights=50%", settings=SETTINGS)
    one = fewer.compress(made(Two), TreeSamples({"x": X, "mask": M}), "weights=50%", settings=SETTINGS)
    assert len(run.prepared.calibration) == 20 and len(run.prepared.heldout) == len(run.prepared.deciding) == 4
    assert run.report.verdict.met and run.report.verdict.distortion == one.report.verdict.distortion
    assert all(
        torch.equal(a, b) for a, b in zip(run.model.state_dict().values(), one.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("given", [CLOUDS, [{"x": torch.from_numpy(c).float()} for c in CLOUDS]])
def test_samples_of_different_length(given):
    run = fewer.compress(made(Cloud), given, "weights=50%", settings=SETTINGS)
    assert run.report.verdict.met and 0 < run.report.verdict.distortion < 0.5
    assert run.report.baselines and run.report.additivity is not None


def test_an_own_forward_gets_samples_of_different_length_as_a_list_or_one_by_one():
    several: list[int] = []

    def by_list(model, clouds):
        several.append(len(clouds))
        return torch.cat([model(cloud[None]) for cloud in clouds])

    run = fewer.compress(made(Cloud), CLOUDS, "weights=50%", settings=SETTINGS, forward=by_list)
    alone = fewer.compress(
        made(Cloud), CLOUDS, "weights=50%", settings=SETTINGS, forward=lambda model, cloud: model(cloud[None])
    )
    assert max(several) > 1 and run.report.verdict.met and alone.report.verdict.met


def test_a_collate_function_pads():
    def pad(clouds):
        return torch.nn.utils.rnn.pad_sequence(clouds, batch_first=True)

    run = fewer.compress(made(Cloud), ListSamples(CLOUDS, pad), "weights=50%", settings=SETTINGS)
    assert run.report.verdict.met


def test_time_is_not_planned_for_what_cannot_be_timed():
    with pytest.raises(FewerError, match="can be timed and put on the kernels"):
        fewer.compress(made(Two), (X, M), "latency=0.5x", settings=SETTINGS)


def test_inputs_that_fit_no_reading_say_so():
    with pytest.raises(FewerError, match="does not run on inputs of shape"):
        fewer.compress(made(Two), [torch.zeros(3), torch.zeros(5)], "weights=50%", settings=SETTINGS)


def test_recovery_of_a_model_with_several_inputs(tmp_path):
    fewer.compress(made(Two), (X, M), "weights=40%", settings=quick(compensation="none"), out=tmp_path / "run")
    done = fewer.recover(tmp_path / "run", None, steps=6, model=made(Two), images=(X, M), out=tmp_path / "recovered")
    assert done.report.recovery is not None and done.report.recovery.after <= 1.01 * done.report.recovery.before


def test_recovery_with_samples_of_different_length(tmp_path):
    fewer.compress(made(Cloud), CLOUDS, "weights=40%", settings=quick(compensation="none"), out=tmp_path / "run")
    done = fewer.recover(tmp_path / "run", None, steps=6, model=made(Cloud), images=CLOUDS, out=tmp_path / "recovered")
    assert done.report.recovery is not None


class Agreement:
    """Share of samples whose first class changes: what a user of a classifier may care about."""

    def __init__(self, outputs):
        self.wanted = [o.argmax(1) for o in outputs]
        self.samples = sum(map(len, self.wanted))

    def part(self, start, stop):
        made = object.__new__(Agreement)
        made.wanted = self.wanted[start:stop]
        made.samples = sum(map(len, made.wanted))
        return made

    def change(self, batch, output):
        return (output.argmax(1) != self.wanted[batch]).double().cpu()


@pytest.mark.parametrize("estimator", ["measured", "taylor"])
def test_a_distance_of_ones_own_is_what_is_measured_and_reported(estimator):
    settings = quick(estimator=estimator)
    run = fewer.compress(small(), images(), "weights=50%", settings=settings, distance=Agreement)
    judged = run.prepared.heldout.batch()
    with torch.no_grad():
        share = float((small()(judged).argmax(1) != run.model(judged).argmax(1)).double().mean())
    assert run.report.verdict.distortion == share


def test_the_default_distance_given_by_hand_changes_nothing():
    a = fewer.compress(small(), images(), "weights=50%", settings=quick())
    b = fewer.compress(small(), images(), "weights=50%", settings=quick(), distance=Reference)
    assert a.report.verdict.distortion == b.report.verdict.distortion
    assert all(
        torch.equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("options", [{}, {"estimator": "taylor", "pattern": "block:4x4,columns"}, {"score": "taylor"}])
def test_another_device_gives_what_the_cpu_gives(options):
    here = fewer.compress(small(), images(), "weights=50%", settings=quick(**options))
    with other_device():
        there = fewer.compress(small(), images(), "weights=50%", settings=quick(device="meta", **options))
        assert next(there.model.parameters()).device.type == "meta"
        state = {name: value.to("cpu") for name, value in there.model.state_dict().items()}
    assert there.report.verdict.distortion == pytest.approx(here.report.verdict.distortion, rel=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in here.model.state_dict().items())
