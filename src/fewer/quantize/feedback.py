"""Rounding in which later weights of a row make up for the errors of earlier ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Feedback"]

_COLUMNS = 64  # updated together, as one product
_DAMPING = 0.01
_PASSES = 2


class Feedback:
    """What a weight's inputs say about its rounding, ready for many roundings of one layer.

    One column after the other is rounded, and its error is made up for by the columns that follow (GPTQ, Frantar et al.
    2023, algorithm 1), from the input with the largest second moment on. That takes for granted that all columns that
    follow can move. Where a mask holds some at zero, passes of coordinate descent over the integers come afterwards:
    each weight moves to the integer that is best given all others, so the distortion only falls.

    Parameters
    ----------
    hessian
        Second moments of the input, shape (columns, columns), damped or not.

    Examples
    --------
    Two inputs that are always equal: what the first loses, the second gives back.

    >>> h = torch.tensor([[1.0, 1.0], [1.0, 1.0]]) + 0.01 * torch.eye(2)
    >>> Feedback(torch.block_diag(h, torch.eye(1))).round(torch.tensor([[1.4, 1.3, 64.0]]), torch.ones(1), 64)
    tensor([[ 1.,  2., 64.]])
    """

    def __init__(self, hessian: Tensor) -> None:
        diagonal = hessian.diagonal()
        mean = float(diagonal.mean())
        # float64: a Hessian of few images is nearly singular
        damped = hessian.double() + (_DAMPING * mean if mean > 0 else 1.0) * torch.eye(
            len(hessian), dtype=torch.float64, device=hessian.device
        )
        self.order = diagonal.argsort(descending=True)
        factor, failed = torch.linalg.cholesky_ex(damped[self.order][:, self.order])
        # without second moments (NaN among them) nothing is known of the inputs
        self.upper = None
        if not bool(failed.any()):
            self.upper = torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True).float()
        self.hessian = damped.float()

    def round(
        self, matrix: Tensor, scale: Tensor, top: int, mask: Tensor | None = None, passes: int = _PASSES
    ) -> Tensor:
        """Integers for a weight so that ``tr((Q - W) H (Q - W)^T)`` is small.

        Parameters
        ----------
        matrix
            fp32, shape (rows, columns).
        scale
            Step between two integers, for each row, shape (rows,).
        top
            Largest integer; they are symmetric about 0.
        mask
            True where a weight may be other than zero; all by default. ``matrix`` is zero elsewhere.
        passes
            Of coordinate descent at most, where the mask leaves out any.

        Returns
        -------
        Tensor
            The integers as fp32, shape (rows, columns). A weight that reaches ``top`` steps stays there, so that the
            largest of a row still tells its scale.
        """
        wanted = matrix / scale[:, None]
        if self.upper is None:
            return wanted.round().clamp(-top, top)
        free = wanted.abs() < top - 0.5  # others are at the end of the range, rounded or clipped to it
        if mask is not None:
            free &= mask
        found = torch.empty_like(wanted)
        found[:, self.order] = _forward(wanted[:, self.order], free[:, self.order].float(), self.upper, top)
        if mask is not None and not bool(mask.all()):
            for _ in range(passes):
                if not _descend(found, wanted, free, self.hessian, top):
                    break
        return found


def _forward(wanted: Tensor, free: Tensor, upper: Tensor, top: int) -> Tensor:
    """One sweep over the columns: shapes (rows, columns) and, of the inverse's Cholesky factor, (columns, columns)."""
    left, found, columns = wanted.clone(), torch.empty_like(wanted), wanted.shape[1]
    for start in range(0, columns, _COLUMNS):
        stop = min(columns, start + _COLUMNS)
        block, may, part = left[:, start:stop].T.contiguous(), free[:, start:stop].T.contiguous(), upper[start:stop]
        errors = torch.empty_like(block)
        for i in range(stop - start):
            value = block[i]
            rounded = value.round().clamp_(-top, top)
            errors[i] = (value - rounded) / part[i, start + i]
            block[i] = rounded
            if i + 1 < stop - start:
                block[i + 1 :] -= may[i + 1 :] * (part[i, start + i + 1 : stop, None] * errors[i])
        found[:, start:stop] = block.T
        if stop < columns:
            left[:, stop:] -= free[:, stop:] * (errors.T @ part[:, stop:])
    return found


def _descend(found: Tensor, wanted: Tensor, free: Tensor, hessian: Tensor, top: int) -> bool:
    """One pass of coordinate descent, in place; whether anything moved."""
    gradient, columns, moved = (found - wanted) @ hessian, found.shape[1], False
    inverse = 1 / hessian.diagonal()
    for start in range(0, columns, _COLUMNS):
        stop = min(columns, start + _COLUMNS)
        block, slope = found[:, start:stop].T.contiguous(), gradient[:, start:stop].T.contiguous()
        before, may, part = block.clone(), free[:, start:stop].T, hessian[start:stop]
        for i in range(stop - start):
            best = (block[i] - slope[i] * inverse[start + i]).round().clamp_(-top, top)
            best = torch.where(may[i], best, block[i])
            if i + 1 < stop - start:
                slope[i + 1 :] += part[i, start + i + 1 : stop, None] * (best - block[i])
            block[i] = best
        change = (block - before).T
        moved = moved or bool(change.any())
        found[:, start:stop] = block.T
        gradient += change @ part
    return moved
