"""Teaching the polynomial twin of a network what the network itself says, on unlabelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fewer.core.errors import FewerError
from fewer.core.progress import SILENT, Progress
from fewer.private.left import before
from fewer.private.network import Network
from fewer.private.polynomial import Line, Squares
from fewer.private.teach import agreement_loss, teaching
from fewer.training.loop import fit

__all__ = ["Twin", "adapt", "answers_of"]


class Twin(nn.Module):
    """A network of linear operations and polynomials with trainable numbers; :meth:`network` gives it back."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.was = network
        self.keys = [k for k, t in network.tensors.items() if t.is_floating_point()]
        self.numbers = nn.ParameterList(nn.Parameter(network.tensors[k].float().clone()) for k in self.keys)
        self.curves = nn.ParameterList(nn.Parameter(_numbers(network.activations[k])) for k in network.order())
        # a factor of its own learns as quickly as one, however large it is
        self.factors = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in network.order())

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        tensors = {**self.was.tensors, **dict(zip(self.keys, self.numbers, strict=True))}
        curves: dict[str, Callable[[Tensor], Tensor]] = {}
        for key, numbers, factor in zip(self.was.order(), self.curves, self.factors, strict=True):
            curves[key] = _curve(self.was.activations[key], numbers, factor)
        return self.was.run(x, tensors, curves)

    def network(self) -> Network:
        """With the numbers that were learnt."""
        learnt = {k: p.detach().double() for k, p in zip(self.keys, self.numbers, strict=True)}
        curves: dict[str, Callable[[Tensor], Tensor]] = {}
        for key, numbers, factor in zip(self.was.order(), self.curves, self.factors, strict=True):
            old, times = self.was.activations[key], float(factor.detach())
            *shifts, rest = numbers.detach().double().tolist()
            if isinstance(old, Squares):
                curves[key] = replace(old, shifts=tuple(shifts), outer=old.outer * times, rest=rest)
            else:
                assert isinstance(old, Line)
                curves[key] = replace(old, slope=old.slope * times, rise=rest)
        return replace(self.was.with_activations(curves), tensors={**self.was.tensors, **learnt})


def _numbers(curve: object) -> Tensor:
    """Shifts of a polynomial and its constant."""
    if isinstance(curve, Squares):
        return torch.tensor([*curve.shifts, curve.rest])
    if isinstance(curve, Line):
        return torch.tensor([curve.rise])
    raise FewerError("an activation is no polynomial yet; fit it first")


def _curve(old: object, numbers: Tensor, factor: Tensor) -> Callable[[Tensor], Tensor]:
    def of(x: Tensor) -> Tensor:
        if isinstance(old, Line):
            return old.slope * factor * x + numbers[-1]
        assert isinstance(old, Squares)
        for shift in numbers[:-1]:
            x = (x + shift) ** 2
        return old.outer * factor * x + numbers[-1]

    return of


def answers_of(model: nn.Module, network: Network, images: Tensor) -> Tensor:
    """What a network says, [N, outputs]; where a softmax or a sigmoid ends it, the numbers before it."""
    size = int(torch.Size(network.answer).numel())
    with torch.no_grad():
        said = torch.cat([_rows(model.eval()(part), len(part), size) for part in images.split(500)])
    if not network.left:
        return said
    shape = network.answer[1:] if network.answer[:1] == (1,) else network.answer
    told = before(said.double().reshape(len(said), *shape).numpy(), network.left)
    return torch.from_numpy(told).to(said).reshape(len(said), -1)


def _rows(given: Any, count: int, size: int) -> Tensor:
    """The tensor with so many numbers for each image; networks give tuples and dictionaries, too."""
    found = next((t for t in tree_leaves(given) if isinstance(t, Tensor) and t.numel() == count * size), None)
    if found is None:
        raise FewerError(f"the network gives no tensor of {count} x {size} numbers for {count} images at once")
    return found.reshape(count, size)


def _moved(images: Tensor, shift: int, draw: torch.Generator) -> Tensor:
    """Each image moved by some pixels of its own; its edge goes on where nothing is."""
    high, wide = images.shape[-2:]
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    places = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=draw).tolist()
    return torch.stack([one[:, i : i + high, j : j + wide] for one, (i, j) in zip(padded, places, strict=True)])


def adapt(
    model: nn.Module,
    network: Network,
    images: Tensor,
    *,
    steps: int = 600,
    batch: int = 100,
    rate: float = 3e-3,
    seed: int = 0,
    shift: int = 1,
    progress: Progress = SILENT,
) -> Network:
    """Train the polynomial network so that its outputs are those of the network that it came from.

    No label is used; see :func:`~fewer.private.teach.agreement_loss`.

    Parameters
    ----------
    model
        The teacher.
    network
        Of :func:`~fewer.private.compile.approximate_activations`.
    images
        [N, channels, height, width], as the teacher takes them.
    steps, batch, rate, seed
        Of Adam with a cosine schedule.
    shift
        Pixels by which each image is moved at random, so that few images go a long way.
    progress
        Shows the steps.

    Returns
    -------
    Network
        The same with other numbers.
    """
    twin = Twin(network)
    teacher = answers_of(model, network, images)
    shift = min(shift, *(size - 1 for size in images.shape[-2:])) if images.dim() == 4 else 0
    scale = max(float(teacher.std()), 1e-6)

    def objective(student: nn.Module, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(0, len(images), (batch,), generator=draw)
        x, wanted = images[rows], teacher[rows]
        if shift:
            x = _moved(x, shift, draw)
            wanted = answers_of(model, network, x)
        return agreement_loss(student(x), wanted, scale)

    settings = teaching(batch, steps, rate, seed)
    fit(twin, objective, settings, name="teach the polynomial twin", progress=progress)
    return twin.eval().network()
