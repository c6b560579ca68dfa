"""From a trained network to a circuit: polynomials for activations, numbers into slots, layers into diagonals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.private.circuit import Circuit, Linear, Square, Step
from fewer.private.network import Activation, Convolution, Dense, Layer, read_network, run_chain
from fewer.private.packing import Grid, Ring, diagonals
from fewer.private.polynomial import Squares, fit_squares
from fewer.private.security import Parameters, parameters_for

__all__ = ["approximate_activations", "compile_circuit", "kinds_of", "pack_layers", "pack_within"]

Chain = Sequence[Convolution | Dense | Squares]

_NOISE = 0.02
"""Standard deviation of the noise at most, as a share of that of the results."""

_SHOWN = 200
"""Images at most that say how large results are."""


def compile_circuit(
    model: nn.Module, images: Tensor, *, degrees: int | Mapping[str, int] = 2, degree: int | None = None
) -> tuple[Circuit, Parameters]:
    """A circuit and the smallest secure parameters that it fits into.

    Parameters
    ----------
    model
        As :func:`~fewer.private.network.read_network` takes it.
    images
        [N, channels, height, width]; activations are fitted on what they do.
    degrees
        2 or 4 for all activations, or by name.
    degree
        Of the ring, at least.

    Raises
    ------
    FewerError
        Also for a circuit that is too deep: which layer, and what would fit.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> circuit, parameters = compile_circuit(net, torch.randn(20, 1, 4, 4))
    >>> circuit.levels, parameters.degree, circuit.run(np.zeros((1, 1, 4, 4))).shape
    (2, 8192, (1, 3))
    """
    layers = read_network(model, images[:1])
    return pack_within(*approximate_activations(layers, images, degrees), images, degree=degree)


def approximate_activations(
    layers: Sequence[Layer], images: Tensor, degrees: int | Mapping[str, int] = 2
) -> tuple[list[Convolution | Dense | Squares], list[str]]:
    """Activations become polynomials, each fitted to what the layers before it make of the images."""
    x, found, names = images.double(), [], []
    for layer in layers:
        names.append(layer.name)
        if isinstance(layer, Activation):
            wanted = degrees if isinstance(degrees, int) else degrees.get(layer.name, 2)
            made = fit_squares(lambda v, f=layer.function: f(torch.from_numpy(v)).numpy(), x.numpy(), wanted)
            found.append(made)
            x = torch.from_numpy(made(x.numpy()))
        else:
            found.append(layer)
            x = layer(x)
    return found, names


def kinds_of(chain: Chain) -> list[str]:
    """What each level of a chain is for, as :meth:`~fewer.private.circuit.Circuit.kinds` of its circuit.

    Examples
    --------
    >>> one, square = Dense("a", torch.eye(2).double(), torch.zeros(2).double()), Squares((0.0,), 1.0, 0.0, -1, 1)
    >>> kinds_of([one, square, one]), kinds_of([one, square])
    (['linear', 'joint'], ['linear', 'square'])
    """
    found: list[str] = []
    joint = False
    for i, layer in enumerate(chain):
        if isinstance(layer, Squares):
            last = i == len(chain) - 1
            found += ["square"] * (len(layer.shifts) - 1 + last)
            joint = not last
        else:
            found.append("joint" if joint else "linear")
            joint = False
    return found


def _depths(chain: Chain, names: Sequence[str]) -> list[tuple[str, int]]:
    """Levels of the whole circuit that are used up behind each layer."""
    used, found = 0, []
    for i, (name, layer) in enumerate(zip(names, chain, strict=True)):
        last = i == len(chain) - 1
        used += len(layer.shifts) - 1 + last if isinstance(layer, Squares) else 1
        found.append((name, used))
    return found


def pack_within(
    chain: Chain, names: Sequence[str], images: Tensor, *, degree: int | None = None
) -> tuple[Circuit, Parameters]:
    """A circuit and the smallest secure parameters whose noise does not drown its results.

    The noise is that of the simulator on two images. Where it is more than a fiftieth of how far results lie apart, the
    next larger ring with its finer scale is taken.

    Parameters
    ----------
    chain, names
        Layers with polynomials for activations.
    images
        [N, channels, height, width]; the first ones say how large results are.
    degree
        Of the ring, at least.

    Raises
    ------
    FewerError
        For a circuit that is too deep: which layer, and what would fit.
    """
    from fewer.private.simulator import noise_of

    results = run_chain(chain, images[:_SHOWN].double()).numpy()
    kinds, depths, shape = kinds_of(chain), _depths(chain, names), tuple(images.shape[1:])
    slots = (degree or 0) // 2
    found: tuple[Circuit, Parameters] | None = None
    while True:
        try:
            parameters = parameters_for(kinds, slots, largest=float(np.abs(results).max()), layers=depths)
        except FewerError:
            if found is None:
                raise
            return found  # the largest ring that there is
        found = pack_layers(chain, names, shape, parameters.slots), parameters
        noise = max(noise_of(*found, image) for image in images[:2].numpy())
        if noise <= _NOISE * float(results.std()):
            return found
        slots = parameters.slots * 2


def pack_layers(chain: Chain, names: Sequence[str], shape: tuple[int, ...], slots: int) -> Circuit:
    """Put a chain of linear layers and polynomials into slots."""
    merged = _merge(chain, shape)
    if len(shape) == 3:
        side = 1 << (max(shape[1:]) - 1).bit_length()
        if side**2 > slots:
            raise FewerError(f"an image of {shape[1]} x {shape[2]} does not fit into a ciphertext of {slots} slots")
        place: Grid | Ring = Grid(*shape, side=side).repeated(slots)
    else:
        place = Ring(shape[0], slots)
    inputs = place.places() + np.arange(0, slots, place.period or slots)[:, None]
    count = -(-int(inputs.max() + 1) // slots)
    steps: list[Step] = []
    for name, layer in zip(names, merged, strict=True):
        if isinstance(layer, Squares):
            outs = len(steps[-1].bias) if isinstance(steps[-1], Linear) else 1
            for shift in (*layer.shifts[1:], None):
                everywhere = None if shift is None else np.full(slots, shift)
                steps.append(Square(name, everywhere, outs, shift is not None or layer is merged[-1]))
            continue
        if isinstance(layer, Convolution):
            if not isinstance(place, Grid):
                raise FewerError(f"{name!r}: a convolution cannot follow a linear layer in a circuit")
            step, place = _convolution(name, layer, place, slots)
        else:
            step, place = _dense(name, layer, place, slots)
        steps.append(step)
    return Circuit(tuple(steps), slots, shape, inputs, count, place.places() % slots)


def _merge(chain: Chain, shape: tuple[int, ...]) -> list[Convolution | Dense | Squares]:
    """Factors and constants of polynomials become a part of the linear layers around them."""
    found: list[Convolution | Dense | Squares] = []
    sign, rest = 1.0, 0.0
    x = torch.zeros(1, *shape, dtype=torch.float64)
    for layer in chain:
        if isinstance(layer, Squares):
            if not found or isinstance(found[-1], Squares):
                raise FewerError("an activation must follow a linear layer in a circuit")
            # a power of the outer factor goes in front, so that numbers stay near 1
            inner = abs(layer.outer) ** (1 / layer.degree)
            shifts = tuple(s * inner ** (2**i) for i, s in enumerate(layer.shifts))
            before = found[-1]
            found[-1] = replace(before, weight=before.weight * inner, bias=before.bias * inner + shifts[0])
            found.append(replace(layer, shifts=(0.0, *shifts[1:])))
            sign, rest = float(np.sign(layer.outer)), layer.rest
            continue
        constant = replace(layer, bias=torch.zeros(len(layer.weight), dtype=torch.float64))(torch.full_like(x, rest))
        x = constant
        bias = layer.bias.reshape(-1, *[1] * (constant.dim() - 2)) + constant[0]
        found.append(replace(layer, weight=layer.weight * sign, bias=bias))
        sign, rest = 1.0, 0.0
    return found


def _convolution(name: str, layer: Convolution, place: Grid, slots: int) -> tuple[Linear, Grid]:
    """An image that is repeated through the ciphertext stays so: each copy is made of the copies that are nearest."""
    out, inputs, k, _ = layer.weight.shape
    height, width = layer.bias.shape[1:]
    target = Grid(out, height, width, place.side, place.gap * layer.stride)
    if max(height, width) * target.gap > place.side:
        raise FewerError(
            f"{name!r}: {height} x {width} pixels {target.gap} apart are more than a square of {place.side}"
        )
    axes = [np.arange(n) for n in (out, height, width, inputs, k, k)]
    co, y, x, ci, i, j = np.meshgrid(*axes, indexing="ij", sparse=True)
    down, right = y * layer.stride + i - layer.padding, x * layer.stride + j - layer.padding
    full = (out, height, width, inputs, k, k)
    inside = np.broadcast_to((down >= 0) & (down < place.height) & (right >= 0) & (right < place.width), full)
    rows = np.broadcast_to(target.slot(co, y, x), full)[inside]
    columns = np.broadcast_to(place.slot(ci, down, right), full)[inside]
    values = np.broadcast_to(layer.weight.numpy()[:, None, None], full)[inside]
    repeats = np.zeros(1, dtype=int)
    if place.period:
        target = target.repeated(slots, place.period)
        repeats = np.arange(0, slots, target.period or slots)
        rows = (rows[:, None] + repeats).reshape(-1)
        columns = np.repeat(columns, len(repeats)) + (rows % slots) // place.period * place.period
    found = diagonals(rows, columns, np.repeat(values, len(repeats)), slots)
    bias = np.zeros(-(-target.groups * place.side**2 // slots) * slots)
    bias[target.places() + repeats[:, None]] = layer.bias.numpy().reshape(-1)
    return Linear.build(name, found, tuple(bias.reshape(-1, slots)), (), slots), target


def _dense(name: str, layer: Dense, place: Grid | Ring, slots: int) -> tuple[Linear, Ring]:
    """Fewer outputs than slots: the matrix is wrapped around, and partial sums are added up by rotations."""
    out = len(layer.weight)
    period = 1 << (out - 1).bit_length()
    if period > slots:
        raise FewerError(f"{name!r}: {out} outputs of a linear layer do not fit into a ciphertext of {slots} slots")
    around = max(place.period or slots, period)  # what is repeated is repeated after twice the distance, too
    i, c = np.meshgrid(np.arange(out), np.arange(layer.weight.shape[1]), indexing="ij")
    columns = place.places()[c.reshape(-1)]
    turn = (columns - i.reshape(-1)) % period
    rows = (columns - turn) % around
    values = layer.weight.numpy().reshape(-1)
    # a vector that is repeated through the slots stays so
    repeats = np.arange(0, slots, around)
    rows = (rows[:, None] + repeats).reshape(-1)
    source = columns // slots * slots
    local = (rows.reshape(-1, len(repeats)) + turn[:, None]) % slots + source[:, None]
    found = diagonals(rows, local.reshape(-1), np.repeat(values, len(repeats)), slots)
    folds = []
    while period * 2 ** len(folds) < around:
        folds.append(period * 2 ** len(folds))
    bias = np.zeros(period)
    bias[:out] = layer.bias.numpy().reshape(-1)
    target = Ring(out, period)
    return Linear.build(name, found, (np.tile(bias, slots // period),), tuple(folds), slots), target
