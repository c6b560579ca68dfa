"""Changes of intensity that keep anatomy: random curves, histograms, Fourier amplitudes, synthesis from label maps.

All work on images that are already on the scale of the network's input, and put their result back onto that scale: mean
0 and deviation 1 inside of what is not air. Air is the smallest value of an image where at least 5 % of it has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Style",
    "chain",
    "change_structures",
    "inside",
    "match_histogram",
    "random_curve",
    "swap_amplitude",
    "synthesise",
]

Style = Callable[[Tensor, Tensor | None, np.random.Generator], Tensor]
"""From image ``(channels, *space)``, class indices ``(*space)`` or None and a generator to an image."""

_AIR = 0.05


def inside(channel: Tensor) -> Tensor:
    """True where a channel is not air.

    Examples
    --------
    >>> inside(torch.tensor([0.0, 0.0, 2.0, 3.0])).tolist()
    [False, False, True, True]
    """
    air = channel == channel.min()
    return ~air if _AIR <= float(air.float().mean()) < 1 else torch.ones_like(air)


def _onto_scale(values: Tensor, where: Tensor) -> Tensor:
    """Mean 0 and deviation 1 inside; air lies as far below as in a z-score of an image whose air is 0."""
    mean, std = values[where].mean(), values[where].std(correction=0).clamp_min(1e-6)
    return (values - mean) / std


def random_curve(image: Tensor, mask: Tensor | None, rng: np.random.Generator, knots: int = 6) -> Tensor:
    """Send intensities through a random curve, which may fall as well as rise.

    The curve is linear between knots at the quantiles of the image, whose heights are uniform; half of the time the
    image is mixed in, so that mild curves appear too. The idea is that of Models Genesis (Zhou et al. 2019), whose
    Bezier curves are replaced here because they are nearly monotone.

    Examples
    --------
    >>> image = torch.rand(1, 8, 8)
    >>> random_curve(image, None, np.random.default_rng(0)).shape
    torch.Size([1, 8, 8])
    """
    found = []
    for channel in image:
        where = inside(channel)
        values = channel[where].double().numpy()
        at = np.unique(np.quantile(values, np.linspace(0, 1, knots)))
        if len(at) < 2:
            found.append(channel)
            continue
        heights = rng.uniform(-1.5, 1.5, len(at))
        share = float(rng.uniform(0, 0.7)) if rng.random() < 0.5 else 0.0
        new = (1 - share) * np.interp(values, at, heights) + share * values
        out = channel.clone()
        out[where] = torch.from_numpy(new).to(channel.dtype)
        scaled = _onto_scale(out, where)
        # air stays where it was: it is air in every modality
        found.append(torch.where(where, scaled, channel))
    return torch.stack(found)


def match_histogram(image: Tensor, reference: Tensor) -> Tensor:
    """Give an image the histogram of another, channel by channel, inside of what is not air.

    Examples
    --------
    >>> match_histogram(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])).tolist()
    [[10.0, 20.0, 30.0]]
    """
    found = []
    for channel, other in zip(image, reference, strict=True):
        where, there = inside(channel), inside(other)
        levels = np.linspace(0, 1, 256)
        own = np.quantile(channel[where].double().numpy(), levels)
        theirs = np.quantile(other[there].double().numpy(), levels)
        keep = np.concatenate([[True], np.diff(own) > 0])
        out = torch.full_like(channel, float(other.min()))
        new = np.interp(channel[where].double().numpy(), own[keep], theirs[keep])
        out[where] = torch.from_numpy(new).to(channel.dtype)
        found.append(out)
    return torch.stack(found)


def swap_amplitude(image: Tensor, reference: Tensor, share: float = 0.02) -> Tensor:
    """Take the low frequencies' amplitudes of another image, and keep the phases (FDA, Yang and Soatto 2020, eq. 4).

    Parameters
    ----------
    share
        Half the side of the square of frequencies that is swapped, as a share of each axis; the constant is kept.

    Examples
    --------
    >>> image = torch.rand(1, 8, 8)
    >>> same = swap_amplitude(image, image, 0.2)  # its own amplitudes: the same image, on the scale of the training
    >>> bool(torch.corrcoef(torch.stack([image.flatten(), same.flatten()]))[0, 1] > 0.99)
    True
    """
    axes = tuple(range(1, image.ndim))
    if reference.shape != image.shape:
        kind = "bilinear" if image.ndim == 3 else "trilinear"
        reference = F.interpolate(reference[None], tuple(image.shape[1:]), mode=kind)[0]
    own, other = torch.fft.fftn(image, dim=axes), torch.fft.fftn(reference, dim=axes)
    near = torch.ones(image.shape[1:], dtype=torch.bool)
    for axis, size in enumerate(image.shape[1:]):
        frequency = torch.fft.fftfreq(size).abs() <= max(share, 1 / size)
        near &= frequency.view([-1 if i == axis else 1 for i in range(len(axes))])
    amplitude = torch.where(near, other.abs(), own.abs())
    mixed = torch.fft.ifftn(torch.polar(amplitude, own.angle()), dim=axes).real.float()
    return torch.stack([_onto_scale(new, inside(old)) for new, old in zip(mixed, image, strict=True)])


def synthesise(image: Tensor, mask: Tensor | None, rng: np.random.Generator, parts: int = 4) -> Tensor:
    """Paint an image anew from its label map: a random grey level for each class (SynthSeg, Billot 2023).

    SynthSeg paints complete label maps. Here maps are incomplete, so what is background and not air is first divided
    into ``parts`` by its own intensity. Then: a random smooth gain, a random blur, noise.

    Examples
    --------
    >>> painted = synthesise(torch.rand(1, 8, 8), torch.zeros(8, 8, dtype=torch.uint8), np.random.default_rng(0))
    >>> painted.shape
    torch.Size([1, 8, 8])
    """
    found = []
    for channel in image:
        where = inside(channel)
        labels = torch.zeros_like(channel, dtype=torch.long) if mask is None else mask.long().clone()
        top = int(labels.max()) + 1
        rest = where & (labels == 0)
        if rest.any():
            edges = torch.quantile(
                channel[rest][:: max(1, int(rest.sum()) // 100_000)].float(), torch.linspace(0, 1, parts + 1)[1:-1]
            )
            labels[rest] = top + torch.bucketize(channel[rest].float(), edges)
        count = int(labels.max()) + 1
        level = torch.from_numpy(rng.uniform(-1.5, 1.5, count)).float()
        spread = torch.from_numpy(rng.uniform(0.03, 0.25, count)).float()
        noise = torch.from_numpy(rng.standard_normal(tuple(channel.shape))).float()
        painted = level[labels] + spread[labels] * noise
        painted = _blur(painted, float(rng.uniform(0, 0.9))) * _gain(tuple(channel.shape), rng)
        out = _onto_scale(painted, where)
        found.append(torch.where(where, out, channel))
    return torch.stack(found)


def _blur(image: Tensor, sigma: float) -> Tensor:
    if sigma < 0.2:
        return image
    x = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in range(image.ndim):
        moved = image.movedim(axis, -1)
        flat = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (3, 3), mode="replicate")
        image = F.conv1d(flat, kernel.view(1, 1, -1)).reshape(moved.shape).movedim(-1, axis)
    return image


def _gain(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    coarse = torch.from_numpy(rng.uniform(-0.3, 0.3, (1, 1, *(3,) * len(shape)))).float()
    kind = "bilinear" if len(shape) == 2 else "trilinear"
    return torch.exp(F.interpolate(coarse, shape, mode=kind, align_corners=True)[0, 0])


def change_structures(
    image: Tensor, mask: Tensor | None, rng: np.random.Generator, factors: tuple[float, float], share: float = 0.3
) -> Tensor:
    """Multiply the intensities of each structure, above the image's smallest value, by a random factor.

    Teams of crossMoDA did so with tumour and cochlea; MS-MT's own factors are not known, so they are an argument.

    Examples
    --------
    >>> mask = torch.tensor([[0, 1]], dtype=torch.uint8)
    >>> change_structures(torch.tensor([[[1.0, 3.0]]]), mask, np.random.default_rng(0), (2.0, 2.0), 1.0)
    tensor([[[1., 5.]]])
    """
    if mask is None:
        return image
    out = image.clone()
    low = image.amin(tuple(range(1, image.ndim)), keepdim=True)
    for value in torch.unique(mask).tolist():
        if value and rng.random() < share:
            out = torch.where(mask == value, low + (out - low) * float(rng.uniform(*factors)), out)
    return out


def chain(styles: Sequence[Style]) -> Style | None:
    """One style after the other; None for none."""
    if not styles:
        return None

    def run(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
        for style in styles:
            image = style(image, mask, rng)
        return image

    return run
