"""Linear operations of torch as sparse matrices, exactly."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.private.network import Call, Value, filled, places_of
from fewer.private.reading import MOVES

__all__ = ["identity", "matrix_of", "sparse_product"]

_LARGEST = 60_000_000
"""Numbers in the matrix of one layer, at most; a circuit with more would take gigabytes."""

Made = tuple[list[Tensor | None], Tensor | None, tuple[int, ...]]


def matrix_of(call: Call, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> Made | list[Made]:
    """A matrix for each value that a call reads, what it adds, and the shape of the result.

    A matrix of None is the value itself. An operation with several results gives a list.

    Parameters
    ----------
    call
        A linear operation.
    shapes
        Of the values that it reads, by key.
    tensors
        Of the network.
    """
    read = [v.key for v in places_of(call.args, Value)]
    args = _with_tensors(call.args, tensors)
    if call.kind in MOVES:
        return _moves(call, read, shapes, tensors)
    shape = shapes[read[0]]
    if call.kind in ("add", "sub", "rsub"):
        return _sum(call, args, shapes)
    if call.kind in ("mul", "div", "neg"):
        return _product(call, args, shape)
    if call.kind == "scale_shift":
        _, factor, shift = args
        down = _broadcast(factor, call.shape)
        return [_diagonal(down)], _broadcast(shift, call.shape), call.shape
    if call.kind in ("linear", "matmul", "mm", "addmm"):
        return _dense(call, args, shape)
    if "conv" in call.kind:
        return _convolution(call, args, shape)
    if call.kind in ("mean", "sum"):
        return _mean(call, args, shape)
    return _planes(call, shape, tensors)


class _Kept(dict[str, Any]):
    """Values of the image stay what they are."""

    def __missing__(self, key: str) -> Value:
        return Value(key)


def _with_tensors(args: Any, tensors: Mapping[str, Tensor]) -> Any:
    return filled(args, _Kept(), tensors)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    kept = values != 0  # a weight of zero costs nothing
    index = torch.stack([rows[kept], columns[kept]])
    return torch.sparse_coo_tensor(index, values[kept].double(), size, check_invariants=False).coalesce()


def identity(count: int) -> Tensor:
    """The matrix that changes nothing."""
    return _diagonal(torch.ones(count))


def sparse_product(a: Tensor, b: Tensor) -> Tensor:
    """Of two sparse matrices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls a format that it uses for this a beta
        return torch.sparse.mm(a, b)


def _diagonal(values: Tensor) -> Tensor:
    at = torch.arange(len(values))
    return _sparse(at, at, values, (len(values), len(values)))


def _broadcast(value: Any, shape: tuple[int, ...]) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    return tensor.double().expand(shape).reshape(-1).clone()


def _chosen(index: Tensor, size: int) -> Tensor | None:
    """The matrix that puts number ``index - 1`` in each place; 0 is a place of zeros."""
    index = index.reshape(-1).long()
    if len(index) == size and bool((index == torch.arange(1, size + 1)).all()):
        return None
    rows = torch.nonzero(index > 0).reshape(-1)
    return _sparse(rows, index[rows] - 1, torch.ones(len(rows)), (len(index), size))


def _moves(
    call: Call, read: list[str], shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]
) -> Made | list[Made]:
    """The operation itself, on the numbers of places; twice, as constants are what stays when all numbers grow."""
    numbered: dict[str, Tensor] = {}
    total = 0
    for key in dict.fromkeys(read):
        size = _count(shapes[key])
        numbered[key] = torch.arange(total + 1, total + size + 1, dtype=torch.float64).reshape(shapes[key])
        total += size
    more = {key: values + total + 1 for key, values in numbered.items()}
    first, second = (call.target(*filled(call.args, values, tensors)) for values in (numbered, more))
    several = isinstance(first, (list, tuple))
    made = []
    for one, other in zip(first if several else [first], second if several else [second], strict=True):
        moved = other - one == total + 1
        matrices: list[Tensor | None] = []
        for i, key in enumerate(read):
            start, size = int(numbered[key].reshape(-1)[0]), _count(shapes[key])
            mine = moved & (one >= start) & (one < start + size) & (key not in read[:i])
            matrices.append(_chosen(torch.where(mine, one - start + 1, torch.zeros_like(one)), size))
        constant = torch.where(moved, torch.zeros_like(one), one).reshape(-1)
        made.append((matrices, constant if bool(constant.any()) else None, tuple(one.shape)))
    return made if several else made[0]


def _sum(call: Call, args: tuple[Any, ...], shapes: Mapping[str, tuple[int, ...]]) -> Made:
    """The signs are read off the operation itself."""
    matrices: list[Tensor | None] = []
    shift: Tensor | None = None
    for i, one in enumerate(args[:2]):
        ones = [float(k == i) for k in range(2)]
        given = (
            torch.tensor(v).double() if isinstance(a, (Value, Tensor)) else v for a, v in zip(args, ones, strict=False)
        )
        sign = float(call.target(*given))
        if isinstance(one, Value):
            size = _count(shapes[one.key])
            index = torch.arange(1, size + 1, dtype=torch.float64).reshape(shapes[one.key]).expand(call.shape)
            chosen = _chosen(index, size)
            if sign != 1:
                chosen = (_diagonal(torch.ones(size)) if chosen is None else chosen) * sign
            matrices.append(chosen)
        else:
            shift = _broadcast(one, call.shape) * sign
    return matrices, shift, call.shape


def _product(call: Call, args: tuple[Any, ...], shape: tuple[int, ...]) -> Made:
    if call.kind == "neg":
        factor: Any = -1.0
    else:
        factor = next(a for a in args[:2] if not isinstance(a, Value))
        factor = 1 / factor if call.kind == "div" else factor
    values = _broadcast(factor, call.shape)
    size = _count(shape)
    index = torch.arange(1, size + 1).reshape(shape).expand(call.shape).reshape(-1) - 1
    return [_sparse(torch.arange(len(index)), index, values, (len(index), size))], None, call.shape


def _dense(call: Call, args: tuple[Any, ...], shape: tuple[int, ...]) -> Made:
    """A linear layer on the last axis, at each place of the others."""
    bias: Tensor | None = None
    if call.kind == "linear":
        x, weight, *rest = args
        bias = rest[0] if rest else None
    elif call.kind == "addmm":
        bias, x, weight = args[:3]
        weight = weight.t()
    else:
        x, weight = args[:2]
        weight = weight.transpose(-1, -2) if isinstance(weight, Tensor) else weight
    if not isinstance(x, Value) or not isinstance(weight, Tensor) or weight.dim() != 2 or isinstance(bias, Value):
        raise FewerError(f"{call.name!r}: a product in which the weights do not come second has no place in a circuit")
    places = _count(shape) // shape[-1]
    out, inputs = weight.shape
    _check(call, places * weight.numel())
    rows = torch.arange(places * out).reshape(places, out, 1).expand(places, out, inputs)
    columns = torch.arange(places * inputs).reshape(places, 1, inputs).expand(places, out, inputs)
    values = weight.expand(places, out, inputs)
    made = _sparse(rows.reshape(-1), columns.reshape(-1), values.reshape(-1), (places * out, _count(shape)))
    shift = None if bias is None else _broadcast(bias, (*shape[:-1], out))
    return [made], shift, (*shape[:-1], out)


def _check(call: Call, numbers: int) -> None:
    if numbers > _LARGEST:
        raise FewerError(
            f"{call.name!r} has {numbers / 1e6:.0f} million products, which is too large for a circuit; "
            "take smaller images or fewer channels"
        )


def _convolution(call: Call, args: tuple[Any, ...], shape: tuple[int, ...]) -> Made:
    full = call.kind == "convolution"
    x, weight, *rest = args
    bias = rest[0] if rest else None
    turned = call.kind.startswith("conv_transpose") or (full and bool(args[6]))
    lines = weight.dim() == 3  # along one axis: an image of one row
    stride, padding = (rest[1] if len(rest) > 1 else 1), (rest[2] if len(rest) > 2 else 0)
    if full:
        dilation, groups = args[5], args[8]
    elif turned:
        groups, dilation = (rest[4] if len(rest) > 4 else 1), (rest[5] if len(rest) > 5 else 1)
    else:
        dilation, groups = (rest[3] if len(rest) > 3 else 1), (rest[4] if len(rest) > 4 else 1)
    if not isinstance(x, Value) or weight.dim() not in (3, 4) or len(shape) != weight.dim():
        raise FewerError(f"{call.name!r}: circuits have convolutions along one and two axes, with weights of their own")
    kernel = weight.unsqueeze(2) if lines else weight
    wide, result = ((*s[:2], 1, s[2]) if lines else s for s in (shape, call.shape))
    step, gap = (_pair(v, lines, 1) for v in (stride, dilation))
    around = _around(padding, kernel.shape[2:], gap, lines)
    if turned:
        made = _folded(call, result, kernel, step, around, gap, int(groups)).t().coalesce()
    else:
        made = _folded(call, wide, kernel, step, around, gap, int(groups))
    out = result[1]
    shift = None if bias is None else _broadcast(bias.reshape(1, out, *[1] * (len(call.shape) - 2)), call.shape)
    return [made], shift, call.shape


def _pair(value: Any, lines: bool, other: int) -> tuple[int, int]:
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    if lines:
        return other, int(given[0])
    return (int(given[0]), int(given[-1]))


def _around(padding: Any, kernel: Any, gap: tuple[int, int], lines: bool) -> tuple[int, int, int, int]:
    """Left, right, top and bottom."""
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        down, across = (g * (int(k) - 1) for g, k in zip(gap, kernel, strict=True))
        return across // 2, across - across // 2, down // 2, down - down // 2
    down, across = _pair(padding, lines, 0)
    return across, across, down, down


def _folded(
    call: Call, shape: tuple[int, ...], weight: Tensor, stride: Any, around: Any, dilation: Any, groups: int
) -> Tensor:
    """The matrix of a convolution: places that each result reads, as ``unfold`` lists them."""
    channels = shape[1]
    index = torch.arange(1, _count(shape) + 1, dtype=torch.float64).reshape(shape)
    columns = F.unfold(F.pad(index, around), tuple(weight.shape[2:]), dilation, 0, stride)
    each = weight[0].numel()
    columns = columns.reshape(groups, channels // groups * weight.shape[2] * weight.shape[3], -1).long()
    outs, places = len(weight) // groups, columns.shape[-1]
    _check(call, len(weight) * each * places)
    size = (groups, outs, each, places)
    rows = torch.arange(groups * outs * places).reshape(groups, outs, 1, places).expand(size)
    values = weight.double().reshape(groups, outs, each, 1).expand(size)
    source = columns.reshape(groups, 1, each, places).expand(size)
    kept = ((source > 0) & (values != 0)).reshape(-1)
    rows, source, values = (t.reshape(-1)[kept] for t in (rows, source - 1, values))
    return _sparse(rows, source, values, (len(weight) * places, _count(shape)))


def _mean(call: Call, args: tuple[Any, ...], shape: tuple[int, ...]) -> Made:
    axes = args[1] if len(args) > 1 and args[1] not in (None, []) else list(range(len(shape)))
    axes = [a % len(shape) for a in (axes if isinstance(axes, (list, tuple)) else [axes])]
    rest = [a for a in range(len(shape)) if a not in axes]
    index = torch.arange(_count(shape)).reshape(shape).permute(*rest, *axes)
    index = index.reshape(_count(tuple(shape[a] for a in rest)), -1)
    share = 1.0 if call.kind == "sum" else 1 / index.shape[1]
    rows = torch.arange(len(index))[:, None].expand(index.shape)
    values = torch.full((index.numel(),), share, dtype=torch.float64)
    return [_sparse(rows.reshape(-1), index.reshape(-1), values, (len(index), _count(shape)))], None, call.shape


def _planes(call: Call, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Made:
    """An operation that treats every channel alike, seen on one channel after another place of it."""
    channels, area = shape[1], _count(shape[2:])
    _check(call, area * area)
    basis = torch.eye(area, dtype=torch.float64).reshape(area, 1, *shape[2:])
    key = places_of(call.args, Value)[0].key
    with torch.no_grad():
        plane = call.target(*filled(call.args, {key: basis}, tensors)).reshape(area, -1)
    column, row = torch.nonzero(plane, as_tuple=True)
    values = plane[column, row]
    after = plane.shape[1]
    shift = torch.arange(channels)[:, None]
    rows, columns = (row + shift * after).reshape(-1), (column + shift * area).reshape(-1)
    return [_sparse(rows, columns, values.repeat(channels), (channels * after, channels * area))], None, call.shape
