"""Changes of intensity that keep anatomy: random curves, histograms, Fourier amplitudes, synthesis from label maps.

All work on images that are already on the scale of the network's input, and put their result back onto that scale: mean
0 and deviation 1 inside of what is not air. Air is the smallest value of an image where at least 5 % of it has it. It
is the smallest value of the result too, and nothing else is darker. So a structure can become nearly as dark as air,
as ventricles are in FLAIR, and air lies as far below the rest as it would if the result had been read from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "UNKNOWN",
    "Style",
    "blur",
    "calm",
    "chain",
    "change_structures",
    "degrade",
    "inside",
    "match_histogram",
    "one_of",
    "onto_scale",
    "random_contrast",
    "random_curve",
    "regions",
    "split_levels",
    "swap_amplitude",
    "synthesise",
]

Style = Callable[[Tensor, Tensor | None, np.random.Generator], Tensor]
"""From image ``(channels, *space)``, class indices ``(*space)`` or None and a generator to an image."""

_AIR = 0.05

UNKNOWN = 255
"""Class index of a voxel whose class is not known; it takes part in no loss."""


def inside(channel: Tensor) -> Tensor:
    """True where a channel is not air.

    Examples
    --------
    >>> inside(torch.tensor([0.0, 0.0, 2.0, 3.0])).tolist()
    [False, False, True, True]
    """
    air = channel == channel.min()
    return ~air if _AIR <= float(air.float().mean()) < 1 else torch.ones_like(air)


def onto_scale(values: Tensor, where: Tensor, air: float | None = None) -> Tensor:
    """Mean 0 and deviation 1 inside; where there is air it gets its value first, and nothing stays darker than it.

    Examples
    --------
    >>> onto_scale(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([False, True, True]), -1.0).tolist()
    [-3.0, -1.0, 1.0]
    """
    if air is not None and not where.all():
        values = torch.where(where, values.clamp_min(air), air)
    mean, std = values[where].mean(), values[where].std(correction=0).clamp_min(1e-6)
    return (values - mean) / std


def _levels(channel: Tensor, where: Tensor) -> tuple[float, float]:
    """The darkest and the brightest grey level that a structure of a channel may get."""
    low, high = (float(value) for value in np.quantile(channel[where].numpy(), (0.005, 0.995)))
    return (low if where.all() else float(channel.min())), max(high, low + 1e-6)


def calm(channel: Tensor) -> Tensor:
    """Median of each voxel and its two neighbours, along one axis after the other: without noise, with edges.

    Examples
    --------
    >>> calm(torch.tensor([[0.0, 0.0, 9.0, 0.0, 5.0, 5.0]])).tolist()
    [[0.0, 0.0, 0.0, 5.0, 5.0, 5.0]]
    """
    for axis in range(channel.ndim):
        before = torch.cat([channel.narrow(axis, 0, 1), channel.narrow(axis, 0, channel.shape[axis] - 1)], axis)
        after = torch.cat([channel.narrow(axis, 1, channel.shape[axis] - 1), channel.narrow(axis, -1, 1)], axis)
        low, high = torch.minimum(before, after), torch.maximum(before, after)
        channel = torch.maximum(low, torch.minimum(high, channel))
    return channel


def random_curve(image: Tensor, mask: Tensor | None, rng: np.random.Generator, knots: int = 6) -> Tensor:
    """Send intensities through a random curve, which may fall as well as rise.

    The curve is linear between knots, half way between the image's quantiles and even steps, whose heights are uniform.
    A quarter of the curves only rise and a quarter only fall: heights in a random order are hardly ever either, and yet
    bright on dark often is dark on bright in another modality, as with stains. Of the others and of rising ones, half
    are mixed with the image, so that mild changes appear too. A curve is applied to the image without its noise, a
    random part of which is put back: a steep curve would turn noise into the strongest contrast there is. The idea is
    that of Models Genesis (Zhou et al. 2019), whose Bezier curves are replaced here because they are nearly monotone.

    Examples
    --------
    >>> image = torch.rand(1, 8, 8)
    >>> random_curve(image, None, np.random.default_rng(0)).shape
    torch.Size([1, 8, 8])
    """
    found = []
    for channel in image:
        where = inside(channel)
        quiet = calm(torch.where(where, channel, channel[where].mean()))
        values, noise = quiet[where].numpy(), (channel - quiet)[where].numpy()
        if values.min() == values.max():
            found.append(channel)
            continue
        levels = np.quantile(values, np.linspace(0.005, 0.995, knots))
        at = 0.5 * levels + 0.5 * np.linspace(levels[0], levels[-1], knots)
        heights, kind = rng.uniform(*_levels(channel, where), knots), rng.random()
        falls = kind < 0.25
        if kind < 0.5:
            heights = np.sort(heights)[:: -1 if falls else 1]
        # a falling curve and the image would cancel each other
        share = float(rng.uniform(0, 0.7)) if rng.random() < 0.5 and not falls else 0.0
        new = (1 - share) * np.interp(values, at, heights) + share * values + float(rng.uniform(0, 1)) * noise
        out = channel.clone()
        out[where] = torch.from_numpy(new).to(channel.dtype)
        found.append(onto_scale(out, where, float(channel.min())))
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
    return torch.stack([onto_scale(new, inside(old)) for new, old in zip(mixed, image, strict=True)])


def synthesise(image: Tensor, mask: Tensor | None, rng: np.random.Generator, parts: int = 4) -> Tensor:
    """Paint an image anew from its label map: a random grey level for each class (SynthSeg, Billot 2023).

    SynthSeg paints complete label maps. Here maps are incomplete, so what is background and not air is first divided
    into ``parts`` by its own intensity, see :func:`regions`. Then: a random smooth gain, a random blur, noise.

    Examples
    --------
    >>> painted = synthesise(torch.rand(1, 8, 8), torch.zeros(8, 8, dtype=torch.uint8), np.random.default_rng(0))
    >>> painted.shape
    torch.Size([1, 8, 8])
    """
    found = []
    for channel in image:
        where = inside(channel)
        labels = regions(channel, mask, where, parts)
        count = int(labels.max()) + 1
        air, top = _levels(channel, where)
        level = torch.from_numpy(rng.uniform(0, top - air, count)).float()
        level[0] = 0.0  # of air
        spread = torch.from_numpy(rng.uniform(0.03, 0.25, count)).float()
        noise = torch.from_numpy(rng.standard_normal(tuple(channel.shape))).float()
        painted = level[labels] + spread[labels] * noise
        painted = air + blur(painted, float(rng.uniform(0, 0.9))) * _gain(tuple(channel.shape), rng)
        found.append(onto_scale(painted, where, air))
    return torch.stack(found)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur along every axis; deviations below a fifth of a voxel leave the image as it is.

    Examples
    --------
    >>> blur(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), 0.6).mul(100).round()[0].tolist()
    [0.0, 17.0, 66.0, 17.0, 0.0]
    """
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
        if 0 < value < UNKNOWN and rng.random() < share:
            out = torch.where(mask == value, low + (out - low) * float(rng.uniform(*factors)), out)
    return out


def random_contrast(
    image: Tensor, mask: Tensor | None, rng: np.random.Generator, share: float = 0.5, largest: float = 1.2
) -> Tensor:
    """Random curve, and then a random shift of each structure's intensities: contrast that no curve could give.

    A curve sends equal intensities to equal ones. Other modalities do not: two structures that are alike in the source
    may differ in the target. So a share of the structures is moved up or down as a whole. Their texture stays, unlike
    in :func:`synthesise`, and the shift fades over about a voxel at their rims, as partial volumes do. What is
    background and not air is divided by its own intensity into parts that move likewise.

    Parameters
    ----------
    share
        Of structures that move.
    largest
        Shift, in deviations of the image.

    Examples
    --------
    >>> image, mask = torch.rand(1, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)
    >>> random_contrast(image, mask, np.random.default_rng(0)).shape
    torch.Size([1, 8, 8])
    """
    curved = random_curve(image, mask, rng)
    if mask is None:
        return curved
    found = []
    for old, channel in zip(image, curved, strict=True):
        where = inside(old)
        areas = regions(old, mask, where, int(rng.integers(2, 5)))
        count = int(areas.max()) + 1
        sizes = np.where(rng.random(count) < share, rng.uniform(-largest, largest, count), 0.0)
        shift = torch.from_numpy(sizes).float()[areas]
        moved = channel + blur(shift, 0.6)
        found.append(onto_scale(moved, where, float(channel.min())))
    return torch.stack(found)


def regions(channel: Tensor, mask: Tensor | None, where: Tensor, parts: int) -> Tensor:
    """Label map that is complete: structures of the mask, and the background divided by its own intensity; 0 is air.

    The background, without its noise, is divided by the k-means of its intensities. Voxels whose class is not known are
    treated as background.

    Examples
    --------
    >>> channel = torch.tensor([[0.0, 0.1, 5.0, 5.1]])
    >>> regions(channel, None, torch.ones(1, 4, dtype=torch.bool), 2).tolist()
    [[1, 1, 2, 2]]
    """
    out = torch.zeros(channel.shape, dtype=torch.long)
    top = 0
    rest = where
    if mask is not None:
        structure = (mask > 0) & (mask < UNKNOWN)
        out = torch.where(structure, mask.long(), out)
        top, rest = int(out.max()), where & ~structure
    if rest.any():
        values = calm(channel)[rest].contiguous()
        centres = split_levels(values.numpy(), parts)
        edges = torch.from_numpy(((centres[1:] + centres[:-1]) / 2).astype(np.float32))
        out[rest] = top + 1 + torch.bucketize(values, edges)
    return out


def split_levels(values: np.ndarray, parts: int) -> np.ndarray:
    """Centres of the clusters of k-means of numbers, on a histogram.

    Examples
    --------
    >>> split_levels(np.array([0.0, 0.0, 1.0, 1.0]), 2).round(1).tolist()
    [0.0, 1.0]
    """
    counts, edges = np.histogram(values, 64)
    middle = (edges[1:] + edges[:-1]) / 2
    centres = np.quantile(values, (np.arange(parts) + 0.5) / parts)
    for _ in range(8):
        number = np.searchsorted((centres[1:] + centres[:-1]) / 2, middle)
        weight = np.bincount(number, counts, parts)
        total = np.bincount(number, counts * middle, parts)
        centres = np.sort(np.where(weight > 0, total / np.maximum(weight, 1), centres))
    return centres


def degrade(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
    """Another scanner: a smooth gain, a blur and noise, each for half of the images.

    Examples
    --------
    >>> degrade(torch.rand(1, 8, 8), None, np.random.default_rng(0)).shape
    torch.Size([1, 8, 8])
    """
    found = []
    for channel in image:
        where = inside(channel)
        out = channel
        if rng.random() < 0.5:
            low = out.min()
            out = low + (out - low) * _gain(tuple(channel.shape), rng)
        if rng.random() < 0.5:
            out = blur(out, float(rng.uniform(0.3, 0.9)))
        if rng.random() < 0.5:
            noise = torch.from_numpy(rng.standard_normal(tuple(channel.shape), dtype=np.float32))
            out = out + float(rng.uniform(0, 0.25)) * noise
        found.append(onto_scale(out, where, float(channel.min())))
    return torch.stack(found)


def one_of(styles: Sequence[tuple[float, Style | None]]) -> Style:
    """One style of several, drawn for each image by its weight; None leaves the image as it is.

    Examples
    --------
    >>> one_of([(1.0, None)])(torch.ones(1, 2), None, np.random.default_rng(0)).tolist()
    [[1.0, 1.0]]
    """
    weights = np.array([weight for weight, _ in styles])

    def run(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
        style = styles[int(rng.choice(len(styles), p=weights / weights.sum()))][1]
        return image if style is None else style(image, mask, rng)

    return run


def chain(styles: Sequence[Style]) -> Style | None:
    """One style after the other; None for none."""
    if not styles:
        return None

    def run(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
        for style in styles:
            image = style(image, mask, rng)
        return image

    return run
