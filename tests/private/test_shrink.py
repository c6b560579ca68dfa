"""Fewer diagonals: cheaper, within the budget, and chosen better than by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.private.circuit import Circuit, Linear
from fewer.private.compile import compile_circuit
from fewer.private.execute import Runner
from fewer.private.price import TYPICAL, calibrate, predict_ms, step_ms
from fewer.private.security import parameters_for
from fewer.private.shrink import rank_diagonals, shrink
from fewer.private.simulator import Simulator


@pytest.fixture(scope="module")
def circuit() -> tuple[Circuit, np.ndarray]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10)).eval()
    images = torch.randn(12, 1, 8, 8)
    return compile_circuit(net, images)[0], images.numpy()


@pytest.mark.parametrize("budget", ["he=0.7x", "rotations=0.75x", "he=0.8x,levels=2"])
def test_a_budget_is_kept_and_the_new_circuit_runs(circuit, budget: str) -> None:
    old, images = circuit
    found = shrink(old, images, budget)
    new = found.circuit
    assert found.predicted_ms < found.before_ms and new.levels == 2
    if budget.startswith("he"):
        assert found.predicted_ms <= float(budget[3:6]) * found.before_ms
    else:
        assert new.counts()["rotate"] <= 0.75 * old.counts()["rotate"]
    backend = Simulator(parameters_for(["linear", "joint"]))
    result = Runner(new, backend)([backend.encrypt(v) for v in new.pack(images[0])])
    assert np.allclose(new.unpack(backend.decrypt(result)), new.run(images[:1])[0], atol=1e-9)
    assert backend.counts["rotate"] == new.counts()["rotate"]


def test_the_weakest_diagonals_go_first(circuit) -> None:
    old, images = circuit
    step = old.steps[-1]
    assert isinstance(step, Linear)
    x = np.stack([old.pack(i) for i in images])
    for before in old.steps[:-1]:
        x = before.apply(x)
    order = rank_diagonals(step, x)
    half = len(order) // 2

    def error(gone: list) -> float:
        return float(np.square(step.without(set(gone)).apply(x) - step.apply(x)).mean())

    rng = np.random.default_rng(0)
    chance = np.mean([error([order[i] for i in rng.permutation(len(order))[:half]]) for _ in range(5)])
    assert error(order[:half]) < chance < error(order[half:])


def test_what_cannot_be_met_is_told(circuit) -> None:
    with pytest.raises(FewerError, match="levels"):
        shrink(*circuit, "levels=1")
    with pytest.raises(FewerError, match="not for 'size=1MB'"):
        shrink(*circuit, "size=1MB")


def test_prices_are_of_every_operation_at_every_level(circuit) -> None:
    old, _ = circuit
    assert len(step_ms(old, TYPICAL)) == len(old.steps) and predict_ms(old, TYPICAL) > 0
    assert TYPICAL.at("rotate", 5) > TYPICAL.at("multiply_plain", 5) * 5 and not TYPICAL.measured
    pytest.importorskip("tenseal", reason='needs pip install "fewer[private]"')
    prices = calibrate(parameters_for(3), seconds=0.2)
    assert prices.measured and all(len(row) == 4 for row in prices.ms.values())
    assert prices.at("rotate", 3) > prices.at("multiply_plain", 3)


def test_prices_of_a_circuit_without_squares() -> None:
    pytest.importorskip("tenseal", reason='needs pip install "fewer[private]"')
    prices = calibrate(parameters_for(["linear"]), seconds=0.05)
    assert prices.at("rotate", 1) > 0 and prices.at("square", 1) == 0
