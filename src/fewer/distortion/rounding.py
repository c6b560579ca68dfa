"""Distortion of rounded activations: what happens to the output when nothing but the inputs of one layer is rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewer.distortion.distance import Distance
from fewer.distortion.measured import Measured
from fewer.models.layers import Layer
from fewer.models.running import Forward
from fewer.quantize.activations import rounding_inputs
from fewer.quantize.qdq import InputRange, rounding_to_range

__all__ = ["input_rounding_distortion"]


def input_rounding_distortion(
    model: nn.Module,
    layers: Mapping[str, Layer],
    batches: Sequence[Any],
    precisions: Sequence[str],
    forward: Forward | None = None,
    *,
    reference: Distance | None = None,
    ranges: Mapping[str, InputRange] | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, dict[str, Tensor]]:
    """Measure, layer by layer, what rounding its input as a kernel of a precision does would change.

    The error is independent of what is cut from the weight, so to first order its distortion adds to that of the cut.
    The pass is replayed from the layer on.

    Parameters
    ----------
    model
        A private copy.
    layers
        Its layers, by unit name.
    batches
        Fixed calibration batches.
    precisions
        ``bf16`` and ``int8`` round activations; others do not.
    forward
        ``forward(model, batch)``.
    reference
        Dense outputs of the batches; computed when not given.
    ranges
        Of the layers' inputs: int8 then has this one range instead of one for each token, as in other runtimes.
    done
        Called with the name of each finished layer.

    Returns
    -------
    dict
        Unit name -> precision -> distortion of each sample, float64.

    Examples
    --------
    >>> from fewer.models.layers import find_layers
    >>> from fewer.core.unit import Unit
    >>> net = nn.Linear(3, 2)
    >>> layers = find_layers(net, [Unit("", "linear", (2, 3))], torch.randn(1, 3))
    >>> distortion = input_rounding_distortion(net, layers, [torch.randn(4, 3)], ["int8"])[""]["int8"]
    >>> distortion.shape, bool((distortion < 1e-3).all())
    (torch.Size([4]), True)
    """
    wanted = [p for p in precisions if p in ("bf16", "int8")]
    if not wanted:
        return {}
    measured = Measured(model, batches, forward, reference)
    found: dict[str, dict[str, Tensor]] = {}
    for name, layer in layers.items():
        measured.replay.check(layer.users, measured.dense)
        found[name] = {}
        for precision in wanted:
            static = (ranges or {}).get(name) if precision == "int8" else None
            rounding = (
                rounding_inputs(layer.users, precision) if static is None else rounding_to_range(layer.users, static)
            )
            with rounding:
                parts = [measured.reference.change(i, measured.replay.run(i)) for i in range(len(batches))]
            found[name][precision] = torch.cat(parts).double()
        done(name)
    return found
