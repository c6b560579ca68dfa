"""How much of a layer's repair is believed: what it gains on images that it was not fitted to.

A least-squares repair looks good on its own images. Here the calibration images fall into parts that share no file.
Each part is repaired from the others, on the same mask, and the repair is judged on the part: for every output row
the share of the repair that would have helped there most (0 to 1) has a closed form, since the error is a quadratic.
It says what is kept of the repair that all images together give.
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
from fewer.models.sparse import SparseConvolution

__all__ = ["Part", "believed_shift", "believed_weight", "parts_of", "together"]

_ITERATIONS = 8  # conjugate-gradient steps of the repairs that are only judged
_LIGHT = 0.01  # damping of a repair that other images bear out
_HOLDS = 0.9  # share of such a repair that they must bear out
_NOTHING = 1e-8  # of the energy of a row's output
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
    wanted: Sequence[Tensor],
    inputs: Sequence[Tensor],
    columns: int,
    folds: Sequence[Sequence[int]] | None,
    known: Sequence[Moments] | None = None,
    places: Sequence[Tensor] | None = None,
) -> list[Part]:
    """The moments of each part of the images; all images are one part where they cannot be told apart.

    Parameters
    ----------
    user
        The layer's module.
    wanted, inputs
        Its input in the dense model and now, samples first, batch by batch.
    columns
        Inputs per group times kernel.
    folds
        Part of each sample of each batch: 0, 1, ...; None makes one part. Rows of a layer are points or cells, of
        which no one knows whose they are, for inputs such as LiDAR scans: give batches there whose samples are all of
        one part.
    known
        ``before`` of each part, where it was computed before.
    places
        How often the layer's rows of each batch count; all alike by default.
    """
    groups = int(getattr(user, "groups", 1))
    chosen = _indices(inputs, folds, countable=not isinstance(user, SparseConvolution))
    parts = []
    for number, indices in enumerate(chosen):
        shares = [
            (1.0 if i is None else len(i) / max(1, x.shape[0])) / len(inputs)
            for i, x in zip(indices, inputs, strict=True)
        ]
        old = [x if i is None else x[i] for i, x in zip(indices, wanted, strict=True)]
        new = [x if i is None else x[i] for i, x in zip(indices, inputs, strict=True)]
        weights = _weights(places, indices, inputs)
        after = _moments(user, groups, columns, new, shares, weights)
        ready = known is not None and len(known) == len(chosen)
        before = known[number] if known is not None and ready else _moments(user, groups, columns, old, shares, weights)
        parts.append(_part(user, after, before, old, new, shares, weights))
    return parts


def _weights(
    places: Sequence[Tensor] | None, indices: Sequence[Tensor | None], inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """The weights of the rows that ``indices`` choose, batch by batch."""
    if places is None:
        return [None] * len(inputs)
    found: list[Tensor | None] = []
    for weights, chosen, x in zip(places, indices, inputs, strict=True):
        if chosen is None or not len(chosen):
            found.append(weights)
        else:  # samples, or windows of them, have the same number of rows each
            each = weights.view(len(x), -1) if len(weights) % len(x) == 0 else None
            found.append(None if each is None else each[chosen.to(weights.device)].flatten())
    return found


def _moments(
    user: nn.Module,
    groups: int,
    columns: int,
    inputs: Sequence[Tensor],
    shares: Sequence[float],
    weights: Sequence[Tensor | None],
) -> Moments:
    """Moments of a layer's input over several batches."""
    moments = Moments(groups, columns)
    for x, share, often in zip(inputs, shares, weights, strict=True):
        if len(x):
            add_input(moments, user, x, share=share, weights=often)
    return moments


def _part(
    user: nn.Module,
    after: Moments,
    before: Moments,
    wanted: Sequence[Tensor],
    inputs: Sequence[Tensor],
    shares: Sequence[float],
    weights: Sequence[Tensor | None],
) -> Part:
    cross = [torch.zeros_like(p) for p in after.products]
    total = torch.zeros_like(after.total)
    for a, b, share, often in zip(wanted, inputs, shares, weights, strict=True):
        for rows, now in sampled_rows(user, (a, b), rows_wanted(after.columns, share), often) if len(b) else ():
            rows, now = rows.transpose(0, 1), now.transpose(0, 1)
            total += rows.sum(1)
            for block, sums in zip(after.blocks, cross, strict=True):
                sums.baddbmm_(now[..., block].transpose(1, 2), rows[..., block])
    return Part(after, before, cross, total)


def _indices(
    inputs: Sequence[Tensor], folds: Sequence[Sequence[int]] | None, countable: bool = True
) -> list[list[Tensor | None]]:
    """For every part, which rows of each batch's input are its own; None for all.

    Where each batch is of one part, so are all of its rows. Else every sample needs the same number of rows, which
    those of a sparse convolution (``countable`` is false) never have.
    """
    numbers = sorted({number for batch in folds or () for number in batch})
    whole: list[list[Tensor | None]] = [[None] * len(inputs)]
    if folds is None or len(numbers) < 2:
        return whole
    if all(len(set(batch)) == 1 for batch in folds):
        nothing = torch.zeros(0, dtype=torch.long)
        return [[None if batch[0] == number else nothing for batch in folds] for number in numbers]
    each = {x.shape[0] / len(batch) if x.ndim > 1 else 0.5 for x, batch in zip(inputs, folds, strict=True)}
    if not countable or len(each) > 1 or not each.pop().is_integer():
        return whole
    # windows of one image stand together
    parts = [
        torch.tensor(list(batch)).repeat_interleave(x.shape[0] // len(batch))
        for x, batch in zip(inputs, folds, strict=True)
    ]
    return [[(part == number).nonzero().flatten() for part in parts] for number in numbers]


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
    sweep: Sweep,
    base: Tensor,
    repaired: Tensor,
    mask: Tensor,
) -> tuple[Tensor, float]:
    """Between a weight that was only cut and its repair: the point that the parts agree on, row by row.

    A repair that holds on the other part even with little damping is made with little damping; one that does not is
    made with the damping of the settings.

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
    sweep
        The one that is fitted to all parts.
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
    fitted = [(part, make(together([p for p in parts if p is not part]))) for part in parts]
    share, whole = _borne_out([(part, one.damped(_LIGHT)) for part, one in fitted], original, centred, base, mask)
    if whole >= _HOLDS:
        sweep = sweep.damped(_LIGHT)
    else:
        share, whole = _borne_out(fitted, original, centred, base, mask)
    if sweep.repair.polish:
        repaired = sweep.repaired(repaired, mask, sweep.repair.polish)
    step = (repaired - base) * share[:, None]
    length, limit = float(step.norm()), _FARTHEST * float(original.matrix.float().norm())
    if not length <= limit:  # also where it is no number
        step = step * (limit / length) if length < float("inf") else torch.zeros_like(step)
    whole = float((repaired - base).norm())
    return base + step, float(step.norm()) / whole if whole > 0 else 1.0


def _borne_out(
    fitted: Sequence[tuple[Part, Sweep]], original: Layer, centred: bool, base: Tensor, mask: Tensor
) -> tuple[Tensor, float]:
    """How much of a repair is borne out by parts that it was not fitted to: for each row, and for the whole layer.

    A part has fewer images than all of them, and a repair from all is better borne out than one from a part. If s is
    the share of two halves, signal over signal plus noise, then that of all images, with half of the noise, is
    2 s / (1 + s).
    """
    gain, curvature, energy = base.new_zeros(3, base.shape[0])
    for part, sweep in fitted:
        step = sweep.repaired(base, mask, _ITERATIONS) - base
        moved, start, dense = (_grouped(matrix, part) for matrix in (step, base, original.matrix.float()))
        for i, (block, target) in enumerate(zip(part.after.blocks, part.targets(original, centred), strict=True)):
            seen = part.after.covariance(i) if centred else part.after.second(i)
            here = moved[..., block]
            gain += ((target - start[..., block] @ seen) * here).sum(-1).flatten()
            curvature += ((here @ seen) * here).sum(-1).flatten()
            energy += (target * dense[..., block]).sum(-1).flatten()
    # a step that does nothing on the other part is borne out by nothing there
    told = curvature > _NOTHING * energy.abs()
    share = torch.where(told, gain / curvature.clamp_min(1e-30), 0.0).nan_to_num(0.0).clamp(0.0, 1.0)
    total = float(curvature.sum())
    whole = float((share * curvature).sum()) / total if 0 < total < float("inf") else 0.0
    return 2 * share / (1 + share), whole


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
    energy = torch.zeros_like(shift)
    dense = _grouped(original.matrix.float(), whole)
    for i, block in enumerate(whole.before.blocks):
        energy += ((dense[..., block] @ whole.before.covariance(i)) * dense[..., block]).sum(-1).flatten()
    limit = (energy.clamp_min(0) + whole.mean_output(original).square()).sqrt()
    return (share * shift).clamp(-limit, limit)


def _grouped(matrix: Tensor, part: Part) -> Tensor:
    return matrix.view(part.after.groups, -1, part.after.columns)
