"""Teaching a circuit as it stands in the slots: what diagonals are left learn to say what the network says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.progress import SILENT, Progress
from fewer.private.circuit import Circuit, Linear
from fewer.training.loop import fit
from fewer.training.settings import LoopSettings

__all__ = ["CircuitTwin", "agreement_loss", "teach_circuit", "teaching"]


def teaching(batch: int, steps: int, rate: float, seed: int) -> LoopSettings:
    """How a twin, of polynomials or of a circuit, is taught."""
    return LoopSettings(
        batch=batch,
        steps=steps,
        learning_rate=rate,
        rate_shape="cosine",
        rate_warm_up=0.05,
        weight_decay=0.0,
        optimiser="adam",
        clip=1.0,
        seed=seed,
    )


def agreement_loss(said: Tensor, wanted: Tensor, scale: float) -> Tensor:
    """How far results are from those of the teacher.

    Classes alone say little where a teacher is nearly sure of all of them, and numbers beyond the range that
    polynomials were fitted on blow up; the squared distance of the results over their variance teaches the rest and
    holds them (compare the range penalty of PAPER, arXiv 2509.22857).
    """
    agree = F.kl_div(F.log_softmax(said, -1), F.log_softmax(wanted, -1), reduction="batchmean", log_target=True)
    return agree + F.mse_loss(said / scale, wanted / scale)


def period_of(step: Linear) -> int:
    """The smallest power of two after which every vector of a layer repeats.

    Examples
    --------
    >>> twice = np.tile([1.0, 2.0], 4)
    >>> period_of(Linear.build("a", {(0, 0, 0): twice}, (twice,), (), 8))
    2
    """
    vectors = np.stack([*step.diagonals.values(), *step.bias])
    period = step.slots
    while period > 1 and np.array_equal(vectors[:, : period // 2], vectors[:, period // 2 : period]):
        period //= 2
    return period


class _Layer(nn.Module):
    """The diagonals of one linear layer, trainable where they are not zero, and alike in every copy."""

    used: Tensor

    def __init__(self, step: Linear) -> None:
        super().__init__()
        self.step, self.period = step, period_of(step)
        keys = list(step.diagonals)
        dense = np.stack([step.diagonals[k][: self.period] for k in keys])
        self.values = nn.Parameter(torch.from_numpy(dense).float())
        self.register_buffer("used", torch.from_numpy(dense != 0))
        self.bias = nn.Parameter(torch.from_numpy(np.stack(step.bias)[:, : self.period]).float())
        self.turns = sorted({(s, d) for _, s, d in keys})
        at = {pair: i for i, pair in enumerate(self.turns)}
        self.rows = [[i for i, k in enumerate(keys) if k[0] == out] for out in range(len(step.bias))]
        self.columns = [[at[keys[i][1:]] for i in rows] for rows in self.rows]

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, slots] to [N, outputs, slots]."""
        copies = self.step.slots // self.period
        turned = torch.stack([torch.roll(x[:, s], -d, -1) for s, d in self.turns], 1)
        turned = turned.reshape(*turned.shape[:2], copies, self.period)
        values = self.values * self.used
        outs = []
        for rows, columns, bias in zip(self.rows, self.columns, self.bias, strict=True):
            y = torch.einsum("nkcp,kp->ncp", turned[:, columns], values[rows]).reshape(len(x), -1)
            for fold in self.step.folds:
                y = y + torch.roll(y, -fold, -1)
            outs.append(y + bias.repeat(copies))
        return torch.stack(outs, 1)

    def made(self) -> Linear:
        copies = self.step.slots // self.period
        values = (self.values * self.used).detach().double().repeat(1, copies).numpy()
        bias = self.bias.detach().double().repeat(1, copies).numpy()
        return replace(self.step, diagonals=dict(zip(self.step.diagonals, values, strict=True)), bias=tuple(bias))


class CircuitTwin(nn.Module):
    """A circuit whose numbers can be trained; :meth:`circuit` gives it back with those that were learnt."""

    def __init__(self, circuit: Circuit) -> None:
        super().__init__()
        self.was = circuit
        self.layers = nn.ModuleList(_Layer(s) for s in circuit.steps if isinstance(s, Linear))

    def forward(self, slots: Tensor) -> Tensor:
        """Packed images [N, ciphertexts, slots] to results [N, outputs]."""
        layers = iter(self.layers)

        def apply(i: int, x: Tensor) -> Tensor:
            step = self.was.steps[i]
            if isinstance(step, Linear):
                return next(layers)(x)
            return x * x if step.add is None else x * x + torch.from_numpy(step.add).to(x)

        results: Any = slots
        return self.was.walk(results, apply=apply)[-1][:, 0, torch.from_numpy(self.was.outputs)]

    def circuit(self) -> Circuit:
        """With the numbers as they are now."""
        layers: list[_Layer] = list(self.layers)  # type: ignore[arg-type]
        made = iter(layer.made() for layer in layers)
        return replace(self.was, steps=tuple(next(made) if isinstance(s, Linear) else s for s in self.was.steps))


def teach_circuit(
    circuit: Circuit,
    images: Tensor,
    wanted: Tensor,
    *,
    steps: int = 300,
    batch: int = 32,
    rate: float = 1e-3,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Circuit:
    """Train the numbers on the diagonals that a circuit has, so that it says what the teacher says.

    A diagonal costs the same whatever numbers stand on it, so that those of a convolution need not be alike at every
    place of the image any more. No label is used.

    Parameters
    ----------
    circuit
        For example with fewer diagonals, of :func:`~fewer.private.shrink.shrink`.
    images
        [N, channels, height, width] as the network takes them.
    wanted
        Results of the network on them, [N, outputs].
    steps, batch, rate, seed
        Of Adam with a cosine schedule.
    progress
        Shows the steps.

    Returns
    -------
    Circuit
        The same operations on other numbers.

    Examples
    --------
    >>> from fewer.private.compile import compile_circuit
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.randn(20, 1, 4, 4)
    >>> circuit, _ = compile_circuit(net, images)
    >>> taught = teach_circuit(circuit, images, net(images).detach(), steps=1)
    >>> taught.counts() == circuit.counts()
    True
    """
    twin = CircuitTwin(circuit)
    scale = max(float(wanted.std()), 1e-6)

    def objective(student: nn.Module, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(0, len(images), (batch,), generator=draw)
        slots = np.stack([circuit.pack(image) for image in images[rows].numpy()])
        return agreement_loss(student(torch.from_numpy(slots).float()), wanted[rows], scale)

    settings = teaching(batch, steps, rate, seed)
    fit(twin, objective, settings, name="teach the circuit", progress=progress)
    return twin.eval().circuit()
