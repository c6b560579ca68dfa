"""From a trained network to a circuit: polynomials for activations, numbers into slots, layers into diagonals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.private.circuit import INPUT, Circuit, Kind, kinds_along
from fewer.private.layout import DoesNotFit, largest_constant, pack_stages
from fewer.private.network import Network
from fewer.private.polynomial import fit_squares
from fewer.private.reading import read_network
from fewer.private.security import MODULUS_BITS, Parameters, parameters_for
from fewer.private.stages import IMAGE, Stage, stages_of

__all__ = ["NOISE", "approximate_activations", "compile_circuit", "kinds_of", "pack_within"]

NOISE = 0.02
"""Standard deviation of the noise at most, as a share of that of the results."""

_SHOWN = 200
"""Images at most that say how large results are."""

_FITTED = 1000
"""Images at most that activations are fitted to."""


def compile_circuit(
    model: nn.Module, images: Tensor, *, degrees: int | Mapping[str, int] = 2, degree: int | None = None
) -> tuple[Circuit, Parameters]:
    """A circuit and the smallest secure parameters that it fits into.

    Parameters
    ----------
    model
        As :func:`~fewer.private.reading.read_network` takes it.
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
    network = approximate_activations(read_network(model, images[:1]), images, degrees)
    return pack_within(network, images, degree=degree)


def approximate_activations(network: Network, images: Tensor, degrees: int | Mapping[str, int] = 2) -> Network:
    """Activations become polynomials, each fitted to what the layers before it make of the images."""
    some = images[:_FITTED]
    for key in network.order():
        name = network.name_of(key)
        wanted = degrees if isinstance(degrees, int) else degrees.get(name, degrees.get(key, 2))
        network = with_degree(network, key, network.activations[key], some, wanted)
    return network


def with_degree(network: Network, key: str, function: object, images: Tensor, degree: int) -> Network:
    """One activation as a polynomial of a degree, fitted to what goes into it."""
    assert callable(function)
    seen = network.inputs_of(key, images).numpy()
    try:
        made = fit_squares(lambda v: np.asarray(function(torch.from_numpy(v))), seen, degree)
    except FewerError as error:
        raise FewerError(f"the activation {network.name_of(key)!r}: {error}") from None
    return network.with_activations({key: made})


def _skeleton(stages: Sequence[Stage]) -> list[Kind]:
    """What the steps of a circuit will read and take, before anything is packed."""
    found: list[Kind] = []
    ends = {IMAGE: INPUT}
    for k, stage in enumerate(stages):
        found.append(Kind(stage.name, tuple(ends[s] for s in stage.sources), True, True))
        squares = stage.squares
        for i in range(len(squares.shifts) if squares else 0):
            assert squares is not None
            found.append(Kind(stage.activation, (len(found) - 1,), False, i < len(squares.shifts) - 1))
        ends[k] = len(found) - 1
    return found


def kinds_of(network: Network) -> list[str]:
    """What each level is for, as :meth:`~fewer.private.circuit.Circuit.kinds` of the network's circuit.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.randn(9, 1, 4, 4)
    >>> kinds_of(approximate_activations(read_network(net, images[:1]), images))
    ['linear', 'joint']
    """
    return kinds_along(_skeleton(stages_of(network)))[0]


def pack_within(
    network: Network, images: Tensor, *, degree: int | None = None, noise: float = NOISE
) -> tuple[Circuit, Parameters]:
    """A circuit and the smallest secure parameters whose noise does not drown its results.

    The noise is that of the simulator on two images. Where it is more than a fiftieth of how far results lie apart, the
    next larger ring with its finer scale is taken.

    Parameters
    ----------
    network
        With polynomials for activations.
    images
        [N, channels, height, width]; the first ones say how large results are.
    degree
        Of the ring, at least.
    noise
        Standard deviation of the noise at most, as a share of that of the results.

    Raises
    ------
    FewerError
        For a circuit that is too deep: which layer, and what would fit.
    """
    from fewer.private.simulator import noise_of

    results = network(images[:_SHOWN]).numpy()
    if not np.isfinite(results).all():
        raise FewerError("the network with polynomials gives numbers that are not finite on these images")
    stages = stages_of(network)
    steps = _skeleton(stages)
    kinds, starts = kinds_along(steps)
    depths = [(s.name, u + s.levels) for s, u in zip(steps, starts, strict=True)]
    slots = (degree or 0) // 2
    largest = max(float(np.abs(results).max()), largest_constant(stages))
    found: tuple[Circuit, Parameters] | None = None
    while True:
        try:
            parameters = parameters_for(kinds, slots, largest=largest, layers=depths)
            made = pack_stages(stages, network.shape, parameters.slots)
        except DoesNotFit as error:
            if parameters.degree == max(MODULUS_BITS):
                raise FewerError(str(error)) from None
            slots = parameters.slots * 2
            continue
        except FewerError:
            if found is None:
                raise
            return found  # the largest ring that there is
        found = made, parameters
        there = max(noise_of(*found, image) for image in images[:2].numpy())
        if there <= noise * (float(results.std()) or float(np.abs(results).max())):
            return found
        slots = parameters.slots * 2
