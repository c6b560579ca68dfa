"""Rounding of gradients: from an error signal to one that takes few values, without bias where the method allows it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable

__all__ = [
    "GRADIENTS",
    "clipped_large",
    "hadamard",
    "hadamard_stochastic",
    "logarithmic",
    "nearest_sample",
    "nearest_tensor",
    "rotated",
    "stochastic_block",
    "stochastic_sample",
    "stochastic_tensor",
    "unbiased_scale",
]

BLOCK = 32
"""Values that share a scale, or are rotated together."""
_TINY = 1e-30
_CLIPPED = 1e-3  # LBT: share of large gradients that may be clipped, before it is divided by the number of steps
_RATE = 1e-3  # LBT: how far the clip moves in a step

Round = Callable[[Tensor, int, Tensor], Tensor]


def _top(bits: int) -> int:
    if not 2 <= bits <= 8:
        raise FewerError(f"gradients of {bits} bits are not supported; use 2 to 8")
    return 2 ** (bits - 1) - 1


def _by_sample(g: Tensor) -> Tensor:
    return g.abs().flatten(1).amax(1).reshape(-1, *[1] * (g.ndim - 1)) if g.ndim > 1 else g.abs()


def _nearest(g: Tensor, peak: Tensor, bits: int) -> Tensor:
    scale = peak.clamp(min=_TINY) / _top(bits)
    return (g / scale).round_().mul_(scale)


def _stochastic(g: Tensor, peak: Tensor, bits: int) -> Tensor:
    top = _top(bits)
    scale = peak.clamp(min=_TINY) / top
    return (g / scale).add_(_uniform(g)).floor_().clamp_(-top, top).mul_(scale)


def _uniform(like: Tensor) -> Tensor:
    """Random numbers from 0 to below 1, of 24 bits each, two from every draw of the generator."""
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return torch.rand_like(like)
    count = like.numel()
    pairs = torch.empty(-(-count // 2), dtype=torch.int64).random_(-(2**63), None)
    bits = pairs.view(torch.int32)[:count].bitwise_right_shift_(8)
    return bits.to(torch.float32).mul_(2.0**-24).add_(0.5).view(like.shape)


def nearest_tensor(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Nearest of the integers of one scale: most small gradients become 0, which biases their sum.

    Examples
    --------
    >>> nearest_tensor(torch.tensor([7.0, 0.4, -1.6]), 4, torch.ones(1))
    tensor([ 7.,  0., -2.])
    """
    return _nearest(g, g.abs().amax(), bits)


def nearest_sample(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Nearest with a scale for each sample: the control that tells what the scale does from what the rounding does.

    Examples
    --------
    >>> nearest_sample(torch.tensor([[7.0, 0.4], [0.7, 0.4]]), 4, torch.ones(1))
    tensor([[7.0000, 0.0000],
            [0.7000, 0.4000]])
    """
    return _nearest(g, _by_sample(g), bits)


def stochastic_tensor(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Up or down at random, so that the mean is the gradient: floor(g / s + U) with s = max|g| / (2^(b-1) - 1).

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> g = torch.tensor([7.0, 0.4])
    >>> mean = sum(stochastic_tensor(g, 4, torch.ones(1)) for _ in range(2000)) / 2000
    >>> bool((mean - g).abs().max() < 0.05)
    True
    """
    return _stochastic(g, g.abs().amax(), bits)


def stochastic_sample(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Stochastic rounding with a scale for each sample (PSQ of StatQuant, arXiv 2010.14298, section 4.1)."""
    return _stochastic(g, _by_sample(g), bits)


def _blocks(g: Tensor) -> tuple[Tensor, int]:
    """Rows of :data:`BLOCK` values of one sample each, the last filled up with zeros, and how many a sample has."""
    flat = g.reshape(g.shape[0], -1) if g.ndim > 1 else g[None]
    padded = torch.nn.functional.pad(flat, (0, -flat.shape[1] % BLOCK))
    return padded.reshape(-1, BLOCK), flat.shape[1]


def _joined(blocks: Tensor, columns: int, like: Tensor) -> Tensor:
    rows = like.shape[0] if like.ndim > 1 else 1
    return blocks.reshape(rows, -1)[:, :columns].reshape(like.shape)


def stochastic_block(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Stochastic rounding with a scale for each 32 consecutive values of a sample."""
    blocks, columns = _blocks(g)
    return _joined(_stochastic(blocks, blocks.abs().amax(1, keepdim=True), bits), columns, g)


def logarithmic(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Powers of two, chosen at random so that the mean is the gradient (LUQ, arXiv 2112.10769, section 4).

    The magnitudes are a, 2 a, ... up to max|g|: with 4 bits 7 of them beside 0, so a = max|g| / 2^6. Below a, the value
    is a with probability |g| / a and else 0; above, one of the two powers around it. The number of magnitudes is
    chosen here as what a sign and b - 1 bits can tell apart.

    Examples
    --------
    >>> logarithmic(torch.tensor([64.0, 32.0, -1.0]), 4, torch.ones(1))
    tensor([64., 32., -1.])
    """
    least = g.abs().amax().clamp(min=_TINY) / 2.0 ** (_top(bits) - 1)
    steps = g.abs() / least
    power = steps.clamp(min=1).log2().floor().exp2()
    chance = _uniform(g)
    above = power * (1 + (chance < steps / power - 1).to(g.dtype))
    below = (chance < steps).to(g.dtype)
    return g.sign() * least * torch.where(steps < 1, below, above)


@torch.no_grad()
def clipped_large(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Stochastic rounding within a clip that adapts until a fixed tiny share of gradients lies outside of it.

    This is the idea of *Toward INT4 Fixed-Point Training via Exploring Quantization Error for Gradients* (arXiv
    2407.12637): large gradients matter most, so the share of them that is clipped is held at 0.001 / (2^b - 1), and
    the clip, a share of max|g| kept in ``state``, moves by 0.001 a step; its first value is the one that clips that
    share. The step size and the share are those in use for that paper; the levels are symmetric integers here. What is
    clipped is biased towards 0.

    Parameters
    ----------
    g, bits
        Error signal, and bits.
    state
        One number, the clip as a share of max|g|, 1 at first; it is updated in place.
    """
    peak, share = g.abs().amax(), _CLIPPED / (2**bits - 1)
    clip = float(state)
    if clip == 1.0 and (allowed := int(share * g.numel())):
        clip = max(_RATE, float(g.abs().flatten().topk(allowed + 1).values[-1] / peak.clamp(min=_TINY)))
    outside = float((g.abs() > clip * peak).float().mean())
    state.fill_(min(1.0, max(_RATE, clip + (_RATE if outside > share else -_RATE))))
    return _stochastic(g, clip * peak, bits)


def hadamard(size: int, like: Tensor) -> Tensor:
    """The orthonormal Hadamard matrix of a power of two.

    Examples
    --------
    >>> h = hadamard(4, torch.ones(1))
    >>> bool(torch.allclose(h @ h.T, torch.eye(4)))
    True
    """
    matrix = torch.ones(1, 1, dtype=like.dtype, device=like.device)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5


def rotated(g: Tensor, inner: Callable[[Tensor], Tensor]) -> Tensor:
    """Round blocks of 32 values of a sample after a random rotation, and turn them back.

    The rotation flips signs at random and multiplies by a Hadamard matrix. Both are orthogonal, so a product of the
    rotated gradient with an equally rotated partner, which is what a kernel would compute, equals the product of what
    is given back here with the partner as it is. That holds where the sum of the product runs along the block: of a
    convolution in the gradient of the weight, of a linear layer in that of the input. The other product has no such
    kernel, and what is given back is no integer, so there the rounding is a simulation only.
    """
    blocks, columns = _blocks(g)
    turn = hadamard(BLOCK, g) * (2 * torch.randint(0, 2, (BLOCK, 1), device=g.device) - 1).to(g.dtype)
    return _joined(inner(blocks @ turn) @ turn.T, columns, g)


def hadamard_stochastic(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Stochastic rounding per block after a random Hadamard rotation, which spreads outliers (HOT, arXiv 2503.21261).

    The papers rotate the operands of the weight-gradient product; here every product sees the rotated rounding.
    """
    return rotated(g, lambda x: _stochastic(x, x.abs().amax(1, keepdim=True), bits))


def unbiased_scale(g: Tensor, bits: int, state: Tensor) -> Tensor:
    """Nearest rounding of rotated blocks whose scale is corrected by <x, x> / <x, q>, on integers.

    This is MS-EDEN of Quartet II (arXiv 2601.22813) after EDEN (ICML 2022), carried over from nvfp4 to integers: not
    the elements but the scale makes up for the bias. Chosen here: blocks of 32, integers, the largest magnitude of a
    block is not clipped, and the corrected scale stays fp32. It is exactly without bias for a rotation drawn uniformly
    from all; with signs and one Hadamard matrix a small bias stays, which the tests bound.
    """
    top = _top(bits)

    def inner(x: Tensor) -> Tensor:
        scale = x.abs().amax(1, keepdim=True).clamp(min=_TINY) / top
        q = (x / scale).round() * scale
        both = (x * q).sum(1, keepdim=True)
        return q * torch.where(both > 0, x.square().sum(1, keepdim=True) / both.clamp(min=_TINY), torch.ones_like(both))

    return rotated(g, inner)


GRADIENTS: MethodTable[Round] = MethodTable(
    "gradient rounding",
    [
        Method("stochastic-sample", stochastic_sample, "stochastic, a scale per sample", "StatQuant (NeurIPS 2020)"),
        Method("stochastic", stochastic_tensor, "stochastic, one scale per tensor"),
        Method("stochastic-block", stochastic_block, "stochastic, a scale for each 32 values of a sample"),
        Method("nearest", nearest_tensor, "nearest, one scale per tensor; biased"),
        Method("nearest-sample", nearest_sample, "nearest, a scale per sample; biased"),
        Method("luq", logarithmic, "powers of two without bias", "LUQ (ICLR 2023)"),
        Method("lbt", clipped_large, "stochastic within a clip that adapts; large ones are biased", "LBT (ECCV 2024)"),
        Method("hadamard", hadamard_stochastic, "stochastic per block after a rotation", "HOT (CVPR 2025)"),
        Method("unbiased-scale", unbiased_scale, "nearest after a rotation, with corrected scale", "arXiv 2601.22813"),
    ],
)
"""``run(g, bits, state)``: g is [samples, ...], state one number that ``lbt`` updates; draws are torch's own."""

BIASED = ("nearest", "nearest-sample", "lbt")
"""Whose mean over random numbers is not the gradient."""
