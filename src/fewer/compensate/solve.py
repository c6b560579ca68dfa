"""Least squares on a fixed support: the best values for the weights that a mask leaves."""

from __future__ import annotations

import torch
from torch import Tensor

_QUIET = 0.1  # a group's input counts for at least this part of the mean group's
_SMALLEST = 1e-30  # mean square of an input below which a layer counts as silent


def damp(hessian: Tensor, fraction: float) -> Tensor:
    """Add ``fraction`` of the mean diagonal to the diagonal, so that a rank-deficient Hessian can be solved.

    Parameters
    ----------
    hessian
        Shape (groups, d, d), symmetric, positive semi-definite.
    fraction
        Damping relative to the mean of the diagonal (SparseGPT, Frantar and Alistarh 2023, uses 0.01).

    Examples
    --------
    >>> damp(torch.eye(2)[None], 0.5)[0, 0, 0]
    tensor(1.5000)
    """
    mean = hessian.diagonal(dim1=1, dim2=2).mean(1)
    # a group that hardly saw anything must not be fitted to that little
    mean = mean.clamp_min(_QUIET * float(mean.mean()))
    # an input that is always zero leaves an all-zero Hessian: any positive damping is right then; the same is done
    # where all of a Hessian is so small that its inverse would leave the range of single precision
    amount = torch.where(mean > _SMALLEST, mean * fraction, torch.ones_like(mean))
    return hessian + amount[:, None, None] * torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)


def refit(
    start: Tensor, mask: Tensor, hessian: Tensor, target: Tensor, *, iterations: int = 10, tolerance: float = 1e-4
) -> Tensor:
    """Minimise ``tr(W H W^T) - 2 tr(W T^T)`` over weights that vanish outside a mask.

    Conjugate gradients on all rows at once, each with its own support and step length, preconditioned by the diagonal
    of H. With ``T = W0 H`` this is the layer-wise reconstruction ``|W X - W0 X|^2`` of OBC and SparseGPT; with
    ``T = W0 E[x_dense x^T]`` the layer also makes up for what earlier cuts did to its input.

    Parameters
    ----------
    start
        First guess, shape (groups, rows, d).
    mask
        True where a weight may be non-zero, shape (groups, rows, d).
    hessian
        Damped second moments of the input, shape (groups, d, d).
    target
        Right-hand side, shape (groups, rows, d).
    iterations, tolerance
        Steps at most, and the residual (relative to the right-hand side, in the preconditioned norm) that is enough.

    Returns
    -------
    Tensor
        Shape (groups, rows, d).

    Examples
    --------
    >>> h = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])
    >>> w = torch.tensor([[[1.0, 1.0]]])
    >>> keep_first = torch.tensor([[[True, False]]])
    >>> refit(w * keep_first, keep_first, h, w @ h)
    tensor([[[1.5000, 0.0000]]])
    """
    keep = mask.to(start.dtype)
    x = start * keep
    inverse = keep / hessian.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(start.dtype).tiny)[:, None, :]
    residual = (target - torch.bmm(x, hessian)).mul_(keep)
    z = residual * inverse
    direction = z
    rho = (residual * z).sum(-1, keepdim=True)
    floor = tolerance**2 * (target * keep * target * inverse).sum(-1, keepdim=True)
    for _ in range(iterations):
        if bool((rho <= floor).all()):
            break
        q = torch.bmm(direction, hessian).mul_(keep)
        curvature = (direction * q).sum(-1, keepdim=True)
        step = torch.where(curvature > 0, rho / curvature.clamp_min(torch.finfo(start.dtype).tiny), 0.0)
        x = x.addcmul(step, direction)
        residual = residual.addcmul_(-step, q)
        z = residual * inverse
        previous, rho = rho, (residual * z).sum(-1, keepdim=True)
        direction = z.addcmul(
            torch.where(previous > 0, rho / previous.clamp_min(torch.finfo(start.dtype).tiny), 0.0), direction
        )
    return x * keep
