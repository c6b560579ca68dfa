"""A layer's input as the rows that its weight multiplies: tokens of a linear layer, patches of a convolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from fewer.models.sparse import SparseConvolution
from fewer.models.sparse.product import gathered_rows

_CHUNK_BYTES = 64 * 2**20


def layer_input(inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
    """The tensor that a linear or convolution layer was called with, also as ``layer(input=x)``.

    Examples
    --------
    >>> layer_input((1,), {}), layer_input((), {"input": 2})
    (1, 2)
    """
    return inputs[0] if inputs else keywords["input"]


def change_input(module: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Change what a layer is called with, by place or by name, until the handle is removed.

    Examples
    --------
    >>> layer = nn.Identity()
    >>> handle = change_input(layer, lambda x: x + 1)
    >>> layer(1), layer(input=1)
    (2, 2)
    """

    def hook(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
        if inputs:
            return (change(inputs[0]), *inputs[1:]), keywords
        return inputs, {**keywords, "input": change(keywords["input"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def input_rows(module: nn.Module, x: Tensor) -> Tensor:
    """Lay out the input of a linear or convolution layer so that the layer is one matrix product.

    Parameters
    ----------
    module
        ``Linear``, ``Conv1d``, ``Conv2d`` or ``Conv3d``, grouped or not, with any stride, dilation and padding.
    x
        What the module is called with.

    Returns
    -------
    Tensor
        Shape (rows, groups, kernel times inputs per group); ``rows`` counts samples times output positions.

    Examples
    --------
    >>> import torch
    >>> conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    >>> x = torch.randn(2, 4, 5, 5)
    >>> rows = input_rows(conv, x)
    >>> from fewer.patterns import to_matrix
    >>> y = torch.einsum("ngd,grd->ngr", rows, to_matrix(conv.weight).view(2, 3, -1))
    >>> y = y.reshape(2, 3, 3, 6).permute(0, 3, 1, 2)
    >>> bool(torch.allclose(y + conv.bias.view(1, -1, 1, 1), conv(x), atol=1e-5))
    True
    """
    if isinstance(module, nn.Linear):
        return x.reshape(-1, 1, module.in_features)
    if isinstance(module, SparseConvolution):
        return gathered_rows(x, module.rules_of(x))[:, None]
    return _windows(module, x).reshape(-1, module.groups, module.weight[0].numel())  # type: ignore[operator, union-attr]


def _windows(module: nn.Module, x: Tensor) -> Tensor:
    """What a convolution's kernel sees at each position, as a view: (samples, *positions, groups, *kernel, inputs)."""
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    spatial = len(module.kernel_size)
    if x.ndim == spatial + 1:  # a single sample without a batch dimension
        x = x[None]
    x = _given(module, x)
    for axis, (kernel, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        x = x.unfold(2 + axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    positions = range(2, 2 + spatial)
    kernel_axes = range(2 + spatial, 2 + 2 * spatial)
    # the order of :func:`fewer.patterns.to_matrix`: the channels of a group beside each other, tap by tap
    x = x.unflatten(1, (module.groups, -1))
    return x.permute(0, *(p + 1 for p in positions), 1, *(k + 1 for k in kernel_axes), 2)


def _rows_at(module: nn.Module, x: Tensor, first: int, stride: int) -> Tensor:
    """Every n-th of :func:`input_rows`; the others are not laid out at all."""
    if isinstance(module, nn.Linear) or stride == 1:
        return input_rows(module, x)[first::stride]
    view = _windows(module, x)
    sites = view.shape[: x.ndim - 1]  # samples and positions
    rows = torch.arange(first, math.prod(sites), stride, device=x.device)
    found = view[torch.unravel_index(rows, sites)]
    return found.reshape(len(rows), module.groups, module.weight[0].numel())  # type: ignore[operator, union-attr]


def sampled_rows(
    module: nn.Module, inputs: tuple[Tensor, ...], wanted: float, weights: Tensor | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Lay out about ``wanted`` rows of several inputs of the same shape, in memory-bounded chunks.

    The rows taken are the same ones for all inputs, and they do not depend on how the work is cut into chunks. Their
    stride shares no factor with the positions of a sample, so that no column of an image is preferred.

    Parameters
    ----------
    module
        As for :func:`input_rows`.
    inputs
        What the module was called with, in several versions.
    wanted
        Rows that are enough.
    weights
        How often each row is taken, in the mean 1, shape (rows,): a row of weight 2 comes twice as often as others.
        All rows weigh alike by default, and where there are not as many weights as rows.

    Yields
    ------
    tuple of Tensor
        For each input float32 rows, shape (n, groups, inputs per group times kernel).

    Examples
    --------
    >>> import torch
    >>> x = torch.arange(6.0).view(6, 1)
    >>> [rows.flatten().tolist() for (rows,) in sampled_rows(nn.Linear(1, 1), (x,), 3)]
    [[0.0, 2.0, 4.0]]
    >>> often = torch.tensor([0.0, 4.0, 0.0, 0.0, 1.0, 1.0])
    >>> [rows.flatten().tolist() for (rows,) in sampled_rows(nn.Linear(1, 1), (x,), 6, often)]
    [[1.0, 1.0, 1.0, 1.0, 4.0, 5.0]]
    """
    if weights is not None and len(weights) == row_count(module, inputs[-1]) > 0:
        yield from _weighted_rows(module, inputs, wanted, weights)
        return
    if isinstance(module, SparseConvolution):
        yield from _sampled_sites(module, inputs, wanted)
        return
    if isinstance(module, nn.Linear):
        positions = inputs[0].shape[-2] if inputs[0].ndim > 2 else 1
        samples = tuple(x.reshape(-1, x.shape[-1]) for x in inputs)
    else:
        positions = 0
        single = inputs[0].ndim == module.weight.ndim - 1  # type: ignore[operator, union-attr]
        samples = tuple(x[None] if single else x for x in inputs)
    count = samples[0].shape[0]
    if count == 0:
        return
    one = input_rows(module, samples[0][:1])
    per_sample = one.shape[0]
    stride = max(1, int(per_sample * count / wanted))
    while math.gcd(stride, positions or per_sample) > 1:
        stride += 1
    taken = one.numel() * one.element_size() / stride  # bytes of a sample's rows
    per_chunk = max(1, int(_CHUNK_BYTES / (len(inputs) * taken)))
    for start in range(0, count, per_chunk):
        first = -start * per_sample % stride
        yield tuple(_rows_at(module, x[start : start + per_chunk], first, stride).float() for x in samples)


def row_count(module: nn.Module, x: Tensor) -> int:
    """Rows of :func:`input_rows`, which are not laid out."""
    if isinstance(module, nn.Linear):
        return x.numel() // max(1, module.in_features)
    if isinstance(module, SparseConvolution):
        return module.rules_of(x).outputs
    return math.prod(_windows(module, x).shape[: module.weight.ndim - 1])  # type: ignore[operator, union-attr]


def _weighted_rows(
    module: nn.Module, inputs: tuple[Tensor, ...], wanted: float, weights: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Rows as often as they weigh: those at equal steps of the running sum of the weights."""
    weights = weights.double().clamp_min(0).cpu()
    total = float(weights.sum())
    # the mean weight of a call says how much of all calls' weight is here
    count = round(min(wanted, len(weights)) * total / len(weights)) if total < math.inf else 0
    if count < 1:
        return
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) * (total / count)
    rows = torch.searchsorted(weights.cumsum(0), steps).clamp_(max=len(weights) - 1).to(inputs[0].device)
    size = module.weight[0].numel() * int(getattr(module, "groups", 1))  # type: ignore[union-attr, index, operator]
    for part in rows.split(max(1, _CHUNK_BYTES // (4 * size * len(inputs)))):
        yield tuple(_chosen_rows(module, x, part, inputs[-1]).float() for x in inputs)


def _chosen_rows(module: nn.Module, x: Tensor, rows: Tensor, latest: Tensor) -> Tensor:
    """Some of :func:`input_rows`; the others are not laid out. ``latest`` has the sites that a rulebook is of."""
    if isinstance(module, nn.Linear):
        return input_rows(module, x)[rows]
    if isinstance(module, SparseConvolution):
        return gathered_rows(x, module.rules_of(latest), rows)[:, None]
    view = _windows(module, x)
    sites = view.shape[: module.weight.ndim - 1]  # type: ignore[union-attr]
    found = view[torch.unravel_index(rows, sites)]
    return found.reshape(len(rows), module.groups, module.weight[0].numel())  # type: ignore[operator, union-attr]


def _sampled_sites(
    module: SparseConvolution, inputs: tuple[Tensor, ...], wanted: float
) -> Iterator[tuple[Tensor, ...]]:
    """Rows of a sparse convolution at every n-th output site."""
    rules = module.rules_of(inputs[-1])  # of several versions the last one is that of this very model
    sites = torch.arange(0, rules.outputs, max(1, int(rules.outputs / wanted)), device=inputs[0].device)
    row = module.weight[0].numel() * inputs[0].element_size() * len(inputs)
    for part in sites.split(max(1, _CHUNK_BYTES // row)):
        if len(part):
            yield tuple(gathered_rows(x, rules, part)[:, None].float() for x in inputs)


_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d)


class _Watch(TorchFunctionMode):
    """Notes what a convolution of a certain weight is called with."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.seen = weight, None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CONVOLUTIONS and len(args) > 1 and args[1] is self.weight:
            self.seen = _call_of(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _call_of(x: Tensor, _weight: Tensor, _bias: Any = None, _stride: Any = 1, padding: Any = 0, *_: Any, **more: Any):
    return x, more.get("padding", padding)


def _given(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """The input with the padding that the layer gives it.

    What a layer computes counts, not its class: one that pads in a forward of its own (as TensorFlow does, more to the
    right than to the left) is watched while it runs.
    """
    kind: Any = type(module)
    if kind.forward in (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward) and kind._conv_forward in (
        nn.Conv1d._conv_forward,
        nn.Conv2d._conv_forward,
        nn.Conv3d._conv_forward,
    ):
        return _padded(module, x)
    with torch.no_grad(), _Watch(module.weight) as watch:
        kind.forward(module, x)
    if watch.seen is None:
        return _padded(module, x)
    x, padding = watch.seen
    if isinstance(padding, str):
        return _padded(module, x)
    sides = [padding] * len(module.kernel_size) if isinstance(padding, int) else list(padding)
    return F.pad(x, [int(side) for side in reversed(sides) for _ in range(2)]) if any(sides) else x


def _padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    if module.padding == "valid":
        return x
    sides: list[int] = []
    for axis in reversed(range(len(module.kernel_size))):
        if module.padding == "same":
            total = module.dilation[axis] * (module.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [int(module.padding[axis])] * 2
    if not any(sides):
        return x
    return F.pad(x, sides, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
