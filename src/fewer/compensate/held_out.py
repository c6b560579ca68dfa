"""How much of a layer's repair is believed: what it gains on images that it was not fitted to.

A least-squares repair looks good on its own images. Here the calibration images fall into parts that share no file.
Each part is repaired from the others, on the same mask, and the repair is judged on the part: for every output row
the share of the repair that would have helped there most (0 to 1, a closed form, since the error is a quadratic) is
what is kept of the repair that all images together give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewer.compensate.moments import Moments, add_input, rows_wanted
from fewer.compensate.sweep import Sweep
from fewer.models.inputs import sampled_rows
from fewer.models.layers import Layer

__all__ = ["Part", "believed_shift", "believed_weight", "parts_of", "together"]

_ITERATIONS = 8  # conjugate-gradient steps of the repairs that are only judged
_FARTHEST = 1.0  # times the norm of the dense weight: no repair moves a weight by more


@dataclass
class Part:
    """What a layer sees on some of the images.

    Attributes
    ----------
    after, before
        Moments of its input as it is now, and as it was in the dense model.
    cross
        For each column block the cross moments of the present input with the dense one, summed, shape
        (groups, block, block).
    dense
        Sum of the dense input, shape (groups, columns).
    """

    after: Moments
    before: Moments
    cross: list[Tensor]
    dense: Tensor

    def targets(self, original: Layer, centred: bool) -> list[Tensor]:
        """Cross moments of the dense output (without bias) with the present input, block by block.

        Every column block answers for its own share of the output only: its Hessian knows nothing of the others, and
        blocks that all tried to make up for the whole change of the output would make up for it several times.
        """
        weight = original.matrix.float().view(self.after.groups, -1, self.after.columns)
        count, now, mean = max(1, self.after.count), self.after.mean(), self.dense / max(1, self.after.count)
        found = []
        for block, sums in zip(self.after.blocks, self.cross, strict=True):
            between = sums / count
            if centred:
                between = between - now[:, block, None] * mean[:, None, block]
            found.append(weight[..., block] @ between.transpose(1, 2))
        return found

    def own(self, original: Layer, centred: bool) -> list[Tensor]:
        """Cross moments of the dense output with the dense input."""
        weight = original.matrix.float().view(self.before.groups, -1, self.before.columns)
        plain = [self.before.covariance(i) if centred else self.before.second(i) for i in range(len(self.cross))]
        return [weight[..., block] @ second for block, second in zip(self.before.blocks, plain, strict=True)]

    def mean_output(self, original: Layer) -> Tensor:
        """Mean of the dense output without bias, shape (rows,)."""
        weight = original.matrix.float().view(self.after.groups, -1, self.after.columns)
        mean = self.dense / max(1, self.after.count)
        return torch.bmm(weight, mean[:, :, None]).flatten()


def parts_of(
    user: nn.Module,
    wanted: Tensor,
    x: Tensor,
    columns: int,
    folds: Sequence[int] | None,
    known: Sequence[Moments] | None = None,
) -> list[Part]:
    """The moments of each part of the images; all images are one part where they cannot be told apart.

    Parameters
    ----------
    user
        The layer's module.
    wanted, x
        Its input in the dense model and now, samples first.
    columns
        Inputs per group times kernel.
    folds
        Part of each sample: 0, 1, ...; None makes one part.
    known
        ``before`` of each part, where it was computed before.
    """
    groups = int(getattr(user, "groups", 1))
    chosen = _indices(x, folds)
    parts = []
    for number, index in enumerate(chosen):
        share = 1.0 if index is None else len(index) / x.shape[0]
        a, b = (wanted, x) if index is None else (wanted[index], x[index])
        after = Moments(groups, columns)
        add_input(after, user, b, share=share)
        if known is not None and len(known) == len(chosen):
            before = known[number]
        else:
            before = Moments(groups, columns)
            add_input(before, user, a, share=share)
        cross = [torch.zeros_like(p) for p in after.products]
        total = torch.zeros(groups, columns)
        for rows, now in sampled_rows(user, (a, b), rows_wanted(columns, share)):
            rows, now = rows.transpose(0, 1), now.transpose(0, 1)
            total += rows.sum(1)
            for block, sums in zip(after.blocks, cross, strict=True):
                sums.baddbmm_(now[..., block].transpose(1, 2), rows[..., block])
        parts.append(Part(after, before, cross, total))
    return parts


def _indices(x: Tensor, folds: Sequence[int] | None) -> list[Tensor | None]:
    if folds is None or len(set(folds)) < 2 or x.ndim < 2 or x.shape[0] % len(folds):
        return [None]
    # windows of one image stand together
    part = torch.tensor(list(folds)).repeat_interleave(x.shape[0] // len(folds))
    return [(part == number).nonzero().flatten() for number in sorted(set(folds))]


def together(parts: Sequence[Part]) -> Part:
    """All parts as one."""
    if len(parts) == 1:
        return parts[0]
    return Part(
        Moments.joined([p.after for p in parts]),
        Moments.joined([p.before for p in parts]),
        [torch.stack(list(sums)).sum(0) for sums in zip(*(p.cross for p in parts), strict=True)],
        torch.stack([p.dense for p in parts]).sum(0),
    )


def believed_weight(
    parts: Sequence[Part],
    original: Layer,
    centred: bool,
    make: Callable[[Part], Sweep],
    base: Tensor,
    repaired: Tensor,
    mask: Tensor,
) -> tuple[Tensor, float]:
    """Between a weight that was only cut and its repair: the point that the parts agree on, row by row.

    Parameters
    ----------
    parts
        Two or more.
    original
        The dense layer.
    centred
        Whether the error is about the mean.
    make
        A sweep whose repair is fitted to a part.
    base, repaired
        Shape (rows, columns).
    mask
        True where a weight is kept.

    Returns
    -------
    Tensor
        Shape (rows, columns).
    float
        Share of the repair that was kept, 0 to 1.
    """
    gain = torch.zeros(base.shape[0])
    curvature = torch.zeros(base.shape[0])
    for number, part in enumerate(parts):
        others = together([p for i, p in enumerate(parts) if i != number])
        step = make(others).repaired(base, mask, _ITERATIONS) - base
        moved, start = _grouped(step, part), _grouped(base, part)
        for i, (block, target) in enumerate(zip(part.after.blocks, part.targets(original, centred), strict=True)):
            seen = part.after.covariance(i) if centred else part.after.second(i)
            here = moved[..., block]
            gain += ((target - start[..., block] @ seen) * here).sum(-1).flatten()
            curvature += ((here @ seen) * here).sum(-1).flatten()
    share = torch.where(curvature > 0, gain / curvature.clamp_min(1e-30), 0.0).nan_to_num(0.0).clamp(0.0, 1.0)
    step = (repaired - base) * share[:, None]
    length, limit = float(step.norm()), _FARTHEST * float(original.matrix.float().norm())
    if not length <= limit:  # also where it is no number
        step = step * (limit / length) if length < float("inf") else torch.zeros_like(step)
    whole = float((repaired - base).norm())
    return base + step, float(step.norm()) / whole if whole > 0 else 1.0


def believed_shift(parts: Sequence[Part], original: Layer, weight: Tensor, shift: Tensor) -> Tensor:
    """A correction of the output's mean: as much of it as holds on each part alone, and never out of all proportion.

    Parameters
    ----------
    parts
        One or more; with one, the shift is only bounded.
    original
        The dense layer.
    weight
        As it will be installed, shape (rows, columns).
    shift
        Found on all images together, shape (rows,).
    """
    share = 1.0
    if len(parts) > 1:
        found = []
        for part in parts:
            got = torch.bmm(_grouped(weight, part), part.after.mean()[:, :, None]).flatten()
            found.append(part.mean_output(original) - got)
        every = torch.stack(found)
        others = (every.sum(0) - every) / (len(parts) - 1)
        bottom = float(others.square().sum())
        share = min(1.0, max(0.0, float((others * every).sum()) / bottom)) if bottom > 0 else 0.0
    # nobody loses more than the root mean square of what the dense layer gave
    whole = together(parts)
    energy = torch.zeros(shift.shape[0])
    dense = _grouped(original.matrix.float(), whole)
    for i, block in enumerate(whole.before.blocks):
        energy += ((dense[..., block] @ whole.before.covariance(i)) * dense[..., block]).sum(-1).flatten()
    limit = (energy.clamp_min(0) + whole.mean_output(original).square()).sqrt()
    return (share * shift).clamp(-limit, limit)


def _grouped(matrix: Tensor, part: Part) -> Tensor:
    return matrix.view(part.after.groups, -1, part.after.columns)
