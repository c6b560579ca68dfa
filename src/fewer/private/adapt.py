"""Teaching the polynomial twin of a network what the network itself says, on unlabelled images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.progress import SILENT, Progress
from fewer.private.network import Convolution, Dense
from fewer.private.polynomial import Squares
from fewer.private.teach import agreement_loss, teaching
from fewer.training.loop import fit

__all__ = ["Twin", "adapt"]


class Twin(nn.Module):
    """Linear layers and squares with trainable numbers; :meth:`chain` gives them back as constants."""

    def __init__(self, chain: Sequence[Convolution | Dense | Squares]) -> None:
        super().__init__()
        self.layers = list(chain)
        self.numbers = nn.ParameterList()
        for layer in self.layers:
            if isinstance(layer, Squares):
                # the constant behind a square is the next layer's business
                values = [torch.tensor([*layer.shifts, layer.rest]), torch.tensor([1.0])]
            else:
                values = [layer.weight, layer.bias]
            self.numbers.extend([nn.Parameter(v.float().clone()) for v in values])

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for layer, a, b in zip(self.layers, self.numbers[::2], self.numbers[1::2], strict=True):
            if isinstance(layer, Convolution):
                x = F.conv2d(x, a, b, layer.stride, layer.padding)
            elif isinstance(layer, Dense):
                x = F.linear(x.flatten(1), a, b)
            else:
                for shift in a[:-1]:
                    x = (x + shift) ** 2
                x = layer.outer * b * x + a[-1]
        return x

    def chain(self) -> list[Convolution | Dense | Squares]:
        """The layers with the numbers that were learnt."""
        found: list[Convolution | Dense | Squares] = []
        for layer, a, b in zip(self.layers, self.numbers[::2], self.numbers[1::2], strict=True):
            a, b = a.detach().double(), b.detach().double()
            if isinstance(layer, Convolution):
                found.append(Convolution(layer.name, a, b, layer.stride, layer.padding))
            elif isinstance(layer, Dense):
                found.append(Dense(layer.name, a, b))
            else:
                *shifts, rest = a.tolist()
                found.append(Squares(tuple(shifts), layer.outer * float(b), rest, layer.low, layer.high))
        return found


def adapt(
    model: nn.Module,
    chain: Sequence[Convolution | Dense | Squares],
    images: Tensor,
    *,
    steps: int = 600,
    batch: int = 100,
    rate: float = 1e-3,
    seed: int = 0,
    shift: int = 1,
    progress: Progress = SILENT,
) -> list[Convolution | Dense | Squares]:
    """Train the polynomial network so that its outputs are those of the network that it came from.

    No label is used; see :func:`~fewer.private.teach.agreement_loss`.

    Parameters
    ----------
    model
        The teacher.
    chain
        Of :func:`~fewer.private.compile.approximate_activations`.
    images
        [N, channels, height, width], as the teacher takes them.
    steps, batch, rate, seed
        Of Adam with a cosine schedule.
    shift
        Pixels by which images are moved at random, so that few images go a long way.
    progress
        Shows the steps.

    Returns
    -------
    list
        The same chain with other numbers.
    """
    twin = Twin(chain)
    with torch.no_grad():
        teacher = torch.cat([model.eval()(part) for part in images.split(500)])
    scale = float(teacher.std())

    def objective(student: nn.Module, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(0, len(images), (batch,), generator=draw)
        x, wanted = images[rows], teacher[rows]
        if shift:
            down, right = torch.randint(-shift, shift + 1, (2,), generator=draw).tolist()
            x = torch.roll(x, (down, right), (-2, -1))
            with torch.no_grad():
                wanted = model(x)
        return agreement_loss(student(x), wanted, scale)

    settings = teaching(batch, steps, rate, seed)
    fit(twin, objective, settings, name="teach the polynomial twin", progress=progress)
    return twin.eval().chain()
