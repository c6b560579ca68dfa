"""Inputs for a model whose images are not at hand: noise, and noise made to look right to the model's BatchNorms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewer.core.errors import FewerError
from fewer.models.running import call


def gaussian_noise(input_size: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """White noise of mean 0 and deviation 1: [count, *input_size].

    Examples
    --------
    >>> tuple(gaussian_noise((3, 8, 8), 2).shape)
    (2, 3, 8, 8)
    """
    _check(input_size, count)
    return torch.randn((count, *input_size), generator=torch.Generator().manual_seed(seed))


def coloured_noise(input_size: tuple[int, ...], count: int, seed: int = 0, exponent: float = 1.0) -> Tensor:
    """Noise whose amplitude falls as 1 / frequency ** exponent, as it does in photographs (Field, 1987).

    Channels share most of their pattern, as in photographs; each sample has mean 0 and deviation 1.

    Parameters
    ----------
    input_size : (channels, *space)
        Any number of spatial dimensions.
    count : int
        Samples.
    seed : int
        Of the noise.
    exponent : float
        1 for photographs, 0 for white noise.

    Returns
    -------
    Tensor [count, *input_size], float32

    Examples
    --------
    >>> noise = coloured_noise((3, 16, 16), 2)
    >>> round(float(noise[0].std(unbiased=False)), 3)
    1.0
    """
    _check(input_size, count)
    channels, *space = input_size
    rng = np.random.default_rng(seed)
    axes = tuple(range(2, 2 + len(space)))
    white = rng.standard_normal((count, channels, *space))
    white = 0.8 * rng.standard_normal((count, 1, *space)) + 0.6 * white
    if space:
        grids = np.meshgrid(*[np.fft.fftfreq(n) * n for n in space], indexing="ij")
        radius = np.sqrt(sum(grid**2 for grid in grids))
        amplitude = np.where(radius > 0, np.maximum(radius, 1.0) ** -exponent, 0.0)
        white = np.fft.ifftn(np.fft.fftn(white, axes=axes) * amplitude, axes=axes).real
    rest = tuple(range(1, white.ndim))
    white = white - white.mean(axis=rest, keepdims=True)
    white /= np.maximum(white.std(axis=rest, keepdims=True), 1e-12)
    return torch.from_numpy(white.astype(np.float32))


def batchnorm_inputs(
    model: nn.Module,
    input_size: tuple[int, ...],
    count: int = 32,
    seed: int = 0,
    *,
    steps: int = 40,
    learning_rate: float = 0.1,
) -> tuple[Tensor, str]:
    """Noise optimised until the statistics at every BatchNorm are those that training left behind.

    Follows the data-free calibration of ZeroQ (Cai et al., 2020) and DeepInversion (Yin et al., 2020): minimise over
    the input the squared difference of batch mean and deviation from the running ones, here divided by the running
    deviation so that all layers weigh alike. Details chosen here: start from coloured noise, Adam, no image prior.

    Parameters
    ----------
    model : nn.Module
        Left as it is; its BatchNorms are read in evaluation mode.
    input_size : (channels, *space)
        Shape of one input.
    count : int
        Inputs, optimised as one batch.
    seed : int
        Of the starting noise.
    steps : int
        Optimisation steps, each a forward and a backward pass.
    learning_rate : float
        Of Adam, in units of the input's deviation.

    Returns
    -------
    inputs : Tensor [count, *input_size]
    note : str
        One sentence for the report that says what was done. A model without BatchNorm statistics gets
        coloured noise, and the note says so.

    Raises
    ------
    FewerError
        When the model does not run on such an input.
    """
    start = coloured_noise(input_size, count, seed)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return start, "the model has no BatchNorm statistics, so the inputs are coloured (1/f) noise"
    losses: list[Tensor] = []

    def compare(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
        x = inputs[0]
        axes = [d for d in range(x.ndim) if d != 1]
        spread = (module.running_var + module.eps).sqrt()
        mean_gap = (x.mean(dim=axes) - module.running_mean) / spread
        spread_gap = (x.var(dim=axes, unbiased=False) + module.eps).sqrt() / spread - 1
        losses.append(mean_gap.square().mean() + spread_gap.square().mean())

    flags = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    inputs = start.to(device).requires_grad_(True)
    optimiser = torch.optim.Adam([inputs], lr=learning_rate)
    history: list[float] = []
    handles = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        model.eval()
        with torch.enable_grad():
            for _ in range(steps):
                losses.clear()
                # a copy, because a model may work on its input in place
                call(model, inputs.clone())
                loss = torch.stack(losses).sum()
                history.append(loss.item() / len(norms))
                # only the input's gradient: the model's own .grad fields stay untouched
                (inputs.grad,) = torch.autograd.grad(loss, [inputs])
                optimiser.step()
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in flags:
            module.training = flag
    note = (
        f"inputs are noise optimised for {steps} steps to match {len(norms)} BatchNorm layers "
        f"(mean squared gap {history[0]:.3g} -> {history[-1]:.3g})"
        if history
        else "the inputs are coloured (1/f) noise"
    )
    return inputs.detach().cpu(), note


def _check(input_size: tuple[int, ...], count: int) -> None:
    if count < 1 or not input_size or min(input_size) < 1:
        raise FewerError(f"noise needs a positive count and shape; got {count} of {tuple(input_size)}")
