"""What ``fewer demo private`` does: train, make a circuit, make it cheaper, encrypt; all but the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.progress import Progress, Silent
from fewer.data.digits import real_digits
from fewer.private.adapt import adapt
from fewer.private.cheapen import Cheap, cheapen
from fewer.private.circuit import Circuit
from fewer.private.compile import approximate_activations, pack_within
from fewer.private.price import Prices, prices_here, typical
from fewer.private.reading import read_network
from fewer.private.security import Parameters
from fewer.private.trial import Trial, try_circuit
from fewer.training.loop import fit
from fewer.training.settings import LoopSettings

__all__ = ["BUDGET", "Outcome", "run_demo"]

BUDGET = "he=0.5x"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything that the page is made of.

    Attributes
    ----------
    images, labels
        That were encrypted.
    said
        Classes of the network on them.
    right
        Shares of all held-out digits that are named right, by what named them.
    circuit, parameters
        Of the whole network.
    cheap
        The circuit within the budget.
    prices
        Of operations, for each degree of the ring.
    trial, cheap_trial
        What came out of both, encrypted.
    """

    images: np.ndarray
    labels: np.ndarray
    said: np.ndarray
    right: dict[str, float]
    circuit: Circuit
    parameters: Parameters
    cheap: Cheap
    prices: dict[int, Prices]
    trial: Trial
    cheap_trial: Trial

    def numbers(self) -> dict[str, Any]:
        """In plain values."""
        trial, cheap = self.trial, self.cheap_trial
        told = {
            **self.right,
            "images": len(self.labels),
            "encrypted": trial.encrypted,
            "encrypted_right": _right(trial.scores, self.labels),
            "encrypted_right_cheap": _right(cheap.scores, self.labels),
            "same_class": trial.same,
            "same_class_cheap": cheap.same,
            "difference": trial.difference,
            "difference_cheap": cheap.difference,
            "before": self.cheap.before,
            "after": self.cheap.after,
            "way": self.cheap.name,
            "prices_measured": self.prices[self.parameters.degree].measured,
            "ring": self.parameters.degree,
            "ring_cheap": self.cheap.parameters.degree,
            "modulus_bits": sum(self.parameters.bits),
            "bits_right": trial.depths[-1].bits,
            "query_bytes": trial.query_bytes,
            "answer_bytes": trial.answer_bytes,
        }
        if trial.encrypted:
            told |= {"ms": trial.ms, "ms_cheap": cheap.ms}
        return told


def run_demo(
    *,
    seed: int = 0,
    progress: Progress | None = None,
    steps: int = 600,
    encrypted: int = 40,
    seconds: float = 5.0,
    simulated: bool = False,
) -> Outcome:
    """All of it without the page.

    Parameters
    ----------
    steps
        Of the training, and of teaching the polynomial twin.
    encrypted
        Held-out digits that are encrypted.
    seconds
        In which the operations are timed.
    simulated
        Take the simulator even where TenSEAL is installed.
    """
    shown = progress or Silent()
    known, held = ((torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in real_digits(seed))
    model = train_network(*known, steps=steps, seed=seed, progress=shown)
    fitted = approximate_activations(read_network(model, known[0][:1]), known[0])
    taught = adapt(model, fitted, known[0], steps=steps, seed=seed, shift=0, progress=shown)
    circuit, parameters = pack_within(taught, known[0])
    price = typical if simulated else prices_here(seconds / 2)
    cheap = cheapen(model, taught, known[0], BUDGET, prices=price, steps=steps, shift=0, seed=seed, progress=shown)
    prices = {p.degree: price(p) for p in (parameters, cheap.parameters)}
    with torch.no_grad():
        said = model(held[0])
    labels = held[1].numpy()
    right = {
        "network": _right(said, labels),
        "fitted": _right(fitted(held[0]), labels),
        "taught": _right(taught(held[0]), labels),
        "cheap": _right(_in_parts(cheap.circuit, held[0].numpy()), labels),
    }
    some = held[0][:encrypted].numpy()
    trial, cheap_trial = (
        try_circuit(c, p, some, seed=seed, simulated=simulated, name=name, progress=shown)
        for c, p, name in (
            (circuit, parameters, "encrypted"),
            (cheap.circuit, cheap.parameters, f"encrypted, {BUDGET}"),
        )
    )
    return Outcome(
        some, labels[:encrypted], said[:encrypted].argmax(1).numpy(), right,
        circuit, parameters, cheap, prices, trial, cheap_trial,
    )  # fmt: skip


def train_network(
    images: Tensor, labels: Tensor, *, steps: int = 600, seed: int = 0, progress: Progress | None = None
) -> nn.Module:
    """A network of one convolution and two linear layers with ReLU, trained for some seconds.

    Three levels: one for each linear layer, which those behind an activation share with its square.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
            nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def objective(student: nn.Module, step: int) -> Tensor:
        rows = torch.randint(0, len(images), (64,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
        return F.cross_entropy(student(images[rows]), labels[rows], label_smoothing=0.05)

    settings = LoopSettings(
        batch=64, steps=steps, learning_rate=3e-3, rate_shape="cosine", rate_warm_up=0.05, optimiser="adam", seed=seed
    )
    fit(model, objective, settings, name="train", progress=progress or Silent())
    return model.eval()


def _in_parts(circuit: Circuit, images: np.ndarray, size: int = 50) -> np.ndarray:
    """Results in the clear; the slots of few images at once fit into the cache."""
    return np.concatenate([circuit.run(images[i : i + size]) for i in range(0, len(images), size)])


def _right(scores: np.ndarray | Tensor, labels: Sequence[int] | np.ndarray) -> float:
    return float((np.asarray(scores).argmax(1) == np.asarray(labels)).mean())
