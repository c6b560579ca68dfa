"""Move outliers of activations into the weights, where one scale per row copes with them better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels.copies import copied_module
from fewer.models.running import Forward, call, evaluating, tensors_of

__all__ = ["exact_factors", "readers_of_norms", "smooth_norm", "smoothed", "smoothing_factors"]

_SPREAD = 3.0  # standard deviations that the output of a LayerNorm is taken to reach


def smoothing_factors(inputs: Tensor, weight: Tensor, strength: float = 0.5) -> Tensor:
    """What each input channel is divided by: ``max|x_j|^a / max|w_j|^(1-a)`` (SmoothQuant, arXiv 2211.10438, eq. 4).

    Parameters
    ----------
    inputs
        Largest magnitude of each input channel over the calibration images, shape (columns,).
    weight
        Of the layers that read these inputs, one below the other, shape (rows, columns).
    strength
        0 leaves the activations as they are, 1 moves all of their range into the weight.

    Returns
    -------
    Tensor
        Shape (columns,), positive; 1 for channels that are never active or never read.

    Examples
    --------
    >>> smoothing_factors(torch.tensor([4.0, 1.0]), torch.tensor([[1.0, 1.0]]))
    tensor([2., 1.])
    """
    if not 0 <= strength <= 1:
        raise FewerError(f"the strength of smoothing lies between 0 and 1; got {strength}")
    peak = weight.detach().abs().amax(0).float()
    usable = (inputs > 0) & (peak > 0)
    safe_inputs = torch.where(usable, inputs.float(), torch.ones_like(peak))
    factors = safe_inputs**strength / torch.where(usable, peak, torch.ones_like(peak)) ** (1 - strength)
    return torch.where(usable, factors.clamp(1e-3, 1e3), torch.ones_like(factors))


@torch.no_grad()
def smooth_norm(norm: nn.LayerNorm, layers: list[nn.Linear], inputs: Tensor, strength: float = 0.5) -> Tensor:
    """Divide what a LayerNorm gives by its smoothing factors, and multiply them into the layers that read it, in place.

    The function of the model does not change, up to rounding.

    Parameters
    ----------
    norm
        Affine LayerNorm whose output goes to ``layers`` and nowhere else.
    layers
        Linear layers.
    inputs
        Largest magnitude of each of their input channels, shape (columns,).
    strength
        See :func:`smoothing_factors`.

    Returns
    -------
    Tensor
        The factors.

    Examples
    --------
    >>> norm, layer, x = nn.LayerNorm(4), nn.Linear(4, 2), torch.randn(5, 4)
    >>> before = layer(norm(x))
    >>> _ = smooth_norm(norm, [layer], norm(x).abs().amax(0))
    >>> torch.allclose(layer(norm(x)), before, atol=1e-6)
    True
    """
    affine: Any = norm
    if affine.weight is None or affine.bias is None:
        raise FewerError("only an affine LayerNorm can be smoothed: there is nothing to fold the factors into")
    factors = smoothing_factors(inputs, torch.cat([layer.weight for layer in layers]), strength)
    _fold(norm, layers, factors)
    return factors


def _fold(norm: nn.LayerNorm, layers: Sequence[nn.Linear], factors: Tensor) -> None:
    norm.weight.div_(factors)
    norm.bias.div_(factors)
    for layer in layers:
        layer.weight.mul_(factors)


@torch.no_grad()
def exact_factors(norm: nn.LayerNorm, layers: Sequence[nn.Linear], strength: float = 0.6) -> Tensor:
    """Smoothing factors that are powers of two and come from the parameters alone.

    What a LayerNorm gives lies within its bias plus or minus a few times its weight, so no image is needed; and a
    power of two changes only exponents, so the folded model gives the very numbers of the one as it came.

    Returns
    -------
    Tensor
        Shape (columns,), about as many above 1 as below.

    Examples
    --------
    >>> norm, layer = nn.LayerNorm(2), nn.Linear(2, 2)
    >>> _ = norm.weight.data.copy_(torch.tensor([16.0, 1.0])), layer.weight.data.fill_(0.5)
    >>> exact_factors(norm, [layer], 0.5)
    tensor([2.0000, 0.5000])
    """
    reach = norm.bias.abs() + _SPREAD * norm.weight.abs()
    factors = smoothing_factors(reach, torch.cat([layer.weight for layer in layers]), strength)
    return torch.exp2(torch.round(torch.log2(factors) - torch.log2(factors).mean()))


def readers_of_norms(model: nn.Module, example: Any, forward: Forward | None = None) -> dict[str, list[str]]:
    """Affine LayerNorms, and the linear layers that are given just what they give.

    Examples
    --------
    >>> net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
    >>> readers_of_norms(net, torch.zeros(1, 4))
    {'0': ['1']}
    """
    given: list[tuple[str, Tensor]] = []  # the tensors are kept, or another one may get the same identity
    found: dict[str, list[str]] = {}

    def gave(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: given.append((name, output))

    def got(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            for norm, tensor in given:
                if inputs and inputs[0] is tensor:
                    found.setdefault(norm, []).append(name)

        return look

    handles = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, nn.LayerNorm) and module.elementwise_affine and module.bias is not None:
                if len(module.normalized_shape) == 1:
                    handles.append(module.register_forward_hook(gave(name)))
            elif isinstance(module, nn.Linear):
                handles.append(module.register_forward_pre_hook(got(name)))
        with evaluating(model):
            call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    return {norm: list(dict.fromkeys(layers)) for norm, layers in found.items()}


def smoothed(
    model: nn.Module, example: Any, forward: Forward | None = None, strength: float = 0.6
) -> tuple[nn.Module, Mapping[str, Sequence[str]]]:
    """A copy of a model that gives the very same outputs, with activations that are easier to round.

    A LayerNorm whose output goes anywhere else than into linear layers is left as it is: with its factors folded the
    copy would give something else on the example.

    Parameters
    ----------
    model
        In any mode; not changed.
    example
        One input of it.
    forward
        ``forward(model, example)``.
    strength
        See :func:`smoothing_factors`; of 0 to 0.9, 0.6 was best for DINOv2 ViT-S/14 (``benchmarks/smoothing.py``).

    Returns
    -------
    nn.Module
        The copy; the model itself where nothing can be smoothed.
    mapping of str to sequence of str
        The norms, and the layers that read each.

    Examples
    --------
    >>> net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2))
    >>> _ = net[0].weight.data.copy_(torch.tensor([1.0, 1.0, 1.0, 40.0]))
    >>> copied, readers = smoothed(net, torch.randn(1, 4))
    >>> readers, float(copied[0].weight.max()) < 40
    ({'0': ['1']}, True)
    """
    readers = readers_of_norms(model, example, forward)
    if not readers:
        return model, {}
    result = copied_module(model)
    with evaluating(model), evaluating(result):
        wanted = tensors_of(call(model, example, forward))

        def same() -> bool:
            return all(map(torch.equal, tensors_of(call(result, example, forward)), wanted))

        if not same():
            return model, {}  # it draws random numbers: nothing can be told
        factors = {}
        for norm, names in readers.items():
            layers = [result.get_submodule(name) for name in names]
            factors[norm] = exact_factors(result.get_submodule(norm), layers, strength)  # type: ignore[arg-type]
        folded = list(readers)
        for norm in folded:
            _fold_by_name(result, norm, readers[norm], factors[norm])
        if not same():  # some are read elsewhere as well: which of them is found out one by one
            for norm in folded:
                _fold_by_name(result, norm, readers[norm], 1 / factors[norm])
            folded = []
            for norm in readers:
                _fold_by_name(result, norm, readers[norm], factors[norm])
                if same():
                    folded.append(norm)
                else:
                    _fold_by_name(result, norm, readers[norm], 1 / factors[norm])
    kept = {norm: readers[norm] for norm in folded if bool((factors[norm] != 1).any())}
    return (result, kept) if kept else (model, {})


@torch.no_grad()
def _fold_by_name(model: nn.Module, norm: str, layers: Sequence[str], factors: Tensor) -> None:
    parts = [model.get_submodule(name) for name in layers]
    _fold(model.get_submodule(norm), parts, factors)  # type: ignore[arg-type]
