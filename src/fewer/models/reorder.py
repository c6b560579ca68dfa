"""Put the inner channels of a network in an order in which blocks fall where it hurts least.

The hidden units of an MLP, the channels inside an inverted residual and those inside an attention head may stand in any
order, as long as all layers that make and read them agree: the network stays the same function. A block of 16 x 4
weights is cut as one, though, so it matters which rows and columns are neighbours. Here those are brought together that
are alike in where their weight lies, by cutting the channels in two along the direction in which they differ most,
again and again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.unit import Unit
from fewer.data.samples import Samples
from fewer.kernels.copies import copied_module
from fewer.models.coupling_search import difference, tolerance
from fewer.models.matching import tied
from fewer.models.running import Forward, call, evaluating, numbers_of
from fewer.models.surgery import HEADS

__all__ = ["Reordering", "by_likeness", "find_chains", "read_reorderings", "reorder", "reordered"]

_ITERATIONS = 20  # of the power method
_IMAGES = 16  # that show how strong channels are
_SAME_IMAGES = 2  # that must come out the same
_TRIES = 2
_BATCH = 8
_LEAF = 4  # narrowest block


@dataclass(frozen=True)
class Reordering:
    """An order of the channels that one layer reads, and all that must follow.

    Attributes
    ----------
    consumer
        Layer whose input channels are put in order.
    producers
        Layers whose output channels are; a layer that makes queries, keys and values at once has three times as many.
    followers
        Modules between them that keep something for every channel, such as BatchNorm.
    order
        The old place of each channel.
    inner
        The same for queries and keys, where a producer makes them.
    """

    consumer: str
    producers: tuple[str, ...]
    followers: tuple[str, ...]
    order: tuple[int, ...]
    inner: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values, which :func:`read_reorderings` reads back."""
        return asdict(self)


def read_reorderings(entries: Iterable[Mapping[str, Any]]) -> list[Reordering]:
    """Reorderings from JSON values.

    Raises
    ------
    FewerError
        When they are none.

    Examples
    --------
    >>> read_reorderings([Reordering("b", ("a",), (), (1, 0)).to_dict()])[0].order
    (1, 0)
    """
    found = []
    for entry in entries:
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
            made = Reordering(**values)
            good = sorted(made.order) == list(range(len(made.order)))
            good = good and sorted(made.inner) in ([], list(range(len(made.order))))
        except (TypeError, AttributeError):
            good = False
        if not good:
            raise FewerError("the order of channels in this run cannot be read; make the run again")
        found.append(made)
    return found


@dataclass(frozen=True)
class _Chain:
    """What a :class:`Reordering` is for; ``head`` channels stay together."""

    consumer: Unit
    producers: tuple[Unit, ...]
    followers: tuple[str, ...]
    channels: int
    head: int

    @property
    def fused(self) -> bool:
        """Whether queries, keys and values come out of one layer."""
        return self.producers[0].rows == 3 * self.channels


def by_likeness(features: Tensor, leaf: int = _LEAF) -> Tensor:
    """An order in which rows that are alike stand together.

    Parameters
    ----------
    features : Tensor [n, d]
        What rows are compared by.
    leaf
        Parts of so many rows are not cut any further.

    Returns
    -------
    Tensor
        Shape (n,), the old place of each row. Parts begin at multiples of the largest power of two that their size
        allows, as blocks do.

    Examples
    --------
    >>> by_likeness(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), leaf=2).sort().values.tolist()
    [0, 1, 2, 3]
    >>> sorted(by_likeness(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), leaf=2)[:2].tolist()) in ([0, 2], [1, 3])
    True
    """
    ready: list[Tensor] = []
    parts = [torch.arange(len(features))]
    while parts:
        part = parts.pop()
        size = len(part)
        if size <= leaf:
            ready.append(part)
            continue
        step = next((s for s in (64, 32, 16, 8) if size >= 2 * s and s >= leaf), leaf)
        half = max(step, size // step // 2 * step)
        centred = features[part] - features[part].mean(0)
        ranked = part[(centred @ _direction(centred)).argsort(stable=True)]
        parts += [ranked[half:], ranked[:half]]  # the last is taken first
    return torch.cat(ready)


def _direction(rows: Tensor) -> Tensor:
    """In which rows differ most: the first principal axis, by the power method."""
    axis = rows[rows.square().sum(1).argmax()].clone()
    for _ in range(_ITERATIONS):
        axis = rows.T @ (rows @ axis)
        axis = axis / axis.norm().clamp_min(1e-30)
    return axis


def find_chains(model: nn.Module, units: Sequence[Unit], example: Any, forward: Forward | None = None) -> list[_Chain]:
    """Layers that could be reordered together, by what runs when and by sizes; not tried out yet.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    >>> units = [Unit("0", "linear", (32, 4)), Unit("2", "linear", (2, 32))]
    >>> [chain.consumer.name for chain in find_chains(net, units, torch.randn(1, 4))]
    ['2']
    """
    order: list[str] = []
    handles = []
    try:
        for name, module in model.named_modules():
            if any(t is not None for t in (*module._parameters.values(), *module._buffers.values())):
                handles.append(module.register_forward_hook(lambda m, i, o, name=name: order.append(name)))
        with evaluating(model):
            call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    known = {unit.name: unit for unit in units}
    chains, taken = [], set()
    for unit in units:
        chain = _chain(model, unit, known, order)
        if chain is not None and not taken & {p.name for p in chain.producers}:
            chains.append(chain)
            taken |= {p.name for p in chain.producers}
    return chains


def _chain(model: nn.Module, unit: Unit, known: Mapping[str, Unit], order: Sequence[str]) -> _Chain | None:
    if unit.groups > 1 or tied(model, unit) or order.count(unit.name) != 1:
        return None
    channels, producers, followers = unit.shape[1], [], []
    heads = _heads(model, unit.name)
    for name in reversed(order[: order.index(unit.name)]):
        maker = known.get(name)
        if maker is None:
            module = model.get_submodule(name)
            tensors = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
            if any(t.ndim > 1 for t in tensors):
                return None
            if any(t.ndim == 1 and len(t) == channels for t in tensors):
                followers.append(name)
            continue
        if tied(model, maker) or order.count(name) != 1:
            return None
        fused = heads > 1 and maker.rows == 3 * channels
        if not fused and maker.rows != channels:
            return None
        producers.append(maker)
        if maker.groups == 1:
            head = channels // heads if heads > 1 else channels
            # a layer just before the one that makes them may keep as many numbers, of its own inputs
            return _Chain(unit, tuple(reversed(producers)), tuple(reversed(followers)), channels, head)
        if maker.groups != maker.rows:
            return None
    return None


def _heads(model: nn.Module, name: str) -> int:
    """Heads of the attention that a layer ends; 1 for any other layer."""
    parent = model.get_submodule(name.rpartition(".")[0])
    found = next((getattr(parent, h) for h in HEADS if isinstance(getattr(parent, h, None), int)), 1)
    return int(found)


@torch.no_grad()
def reorder(model: nn.Module, reorderings: Sequence[Reordering]) -> nn.Module:
    """Put channels in order, in place.

    Raises
    ------
    FewerError
        When the model has no such layers, or they are of other sizes.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [2.0]]))
    >>> reorder(net, [Reordering("1", ("0",), (), (1, 0))])[0].weight.flatten().tolist()
    [2.0, 1.0]
    """
    for one in reorderings:
        places, count = torch.tensor(one.order), len(one.order)
        inner = torch.tensor(one.inner) if one.inner else places
        try:
            for name in one.producers:
                module: Any = model.get_submodule(name)
                fused = torch.cat([inner, count + inner, 2 * count + places])
                rows = fused if len(module.weight) == 3 * count else places
                module.weight.copy_(module.weight[rows])
                if module.bias is not None:
                    module.bias.copy_(module.bias[rows])
            for name in one.followers:
                module = model.get_submodule(name)
                for tensor in (*module._parameters.values(), *module._buffers.values()):
                    if tensor is not None and tensor.ndim == 1 and len(tensor) == count:
                        tensor.copy_(tensor[places])
            weight: Any = model.get_submodule(one.consumer).weight
            columns = weight.reshape(len(weight), count, -1)[:, places]
            weight.copy_(columns.reshape(weight.shape))
        except (AttributeError, RuntimeError, IndexError) as error:
            raise FewerError(
                f"the channels before layer '{one.consumer}' cannot be put in order: {str(error).splitlines()[0]}"
            ) from None
    return model


def reordered(
    model: nn.Module,
    units: Sequence[Unit],
    images: Tensor | Samples,
    forward: Forward | None = None,
    *,
    heads: bool = False,
) -> tuple[nn.Module, list[Reordering]]:
    """A copy of a model with its inner channels in an order that suits blocks.

    Parameters
    ----------
    model
        In any mode; not changed.
    units
        Layers that may be cut.
    images
        To see how strong each channel is.
    forward
        ``forward(model, batch)``.
    heads
        Whether to put the channels inside attention heads in order as well.

    Returns
    -------
    nn.Module
        The copy, which gives the same outputs up to the order of sums; the model itself where nothing can be reordered.
    list of Reordering
        What was done, for :func:`reorder` to do it again.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    >>> units, x = [Unit("0", "linear", (32, 4)), Unit("2", "linear", (2, 32))], torch.randn(9, 4)
    >>> made, orders = reordered(net, units, x)
    >>> orders[0].producers, torch.allclose(made(x), net(x), atol=1e-5)
    (('0',), True)
    """
    chains = [c for c in find_chains(model, units, images[:1], forward) if heads or c.head == c.channels]
    if not chains:
        return model, []
    wanted: list[Reordering] = []
    squares = _mean_squares(
        model, {u.name for c in chains for u in (*c.producers, c.consumer)}, images[:_IMAGES], forward
    )
    for chain in chains:
        if {chain.consumer.name, chain.producers[0].name} <= squares.keys():
            wanted.append(_plan(model, chain, squares))
    result = copied_module(model)
    with evaluating(model), evaluating(result):
        few = images[:_SAME_IMAGES]
        before = _outputs(model, few, forward)

        def same() -> bool:
            return difference(before, _outputs(result, few, forward)) <= tolerance(before)

        if not same():
            return model, []  # it draws random numbers: nothing can be told
        kept = [one for kind in _kinds(wanted) for one in _tried(result, kind, same)]
    result.train(model.training)
    return (result, kept) if kept else (model, [])


def _kinds(wanted: Sequence[Reordering]) -> list[list[Reordering]]:
    """Those that stand in the same place of different blocks, by their names."""
    kinds: dict[str, list[Reordering]] = {}
    for one in wanted:
        kinds.setdefault(re.sub(r"\d+", "#", f"{one.producers} {one.consumer}"), []).append(one)
    return list(kinds.values())


def _tried(model: nn.Module, kind: Sequence[Reordering], same: Callable[[], bool]) -> list[Reordering]:
    """Carry out those that change nothing: what they put in order may be read elsewhere as well."""
    reorder(model, kind)
    if same():
        return list(kind)
    reorder(model, [_undone(one) for one in kind])
    kept: list[Reordering] = []
    for tries, one in enumerate(kind):
        if tries >= _TRIES and not kept:
            break  # blocks are alike: where the first ones cannot be reordered, the others cannot
        reorder(model, [one])
        if same():
            kept.append(one)
        else:
            reorder(model, [_undone(one)])
    return kept


def _outputs(model: nn.Module, images: Tensor | Samples, forward: Forward | None) -> list[Tensor]:
    outputs = [call(model, batch, forward) for batch in images.split(len(images))]
    return [t.detach().clone() for output in outputs for t in numbers_of(output)]


def _undone(one: Reordering) -> Reordering:
    back = tuple(torch.tensor(one.order).argsort().tolist())
    inner = tuple(torch.tensor(one.inner).argsort().tolist()) if one.inner else ()
    return Reordering(one.consumer, one.producers, one.followers, back, inner)


def _mean_squares(
    model: nn.Module, names: set[str], images: Tensor | Samples, forward: Forward | None
) -> dict[str, Tensor]:
    """Of each input channel of some layers."""
    sums: dict[str, Tensor] = {}
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def see(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            x = (inputs[0] if inputs else keywords["input"]).detach().float()
            axis = 1 if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) else x.ndim - 1
            found = x.square().mean([i for i in range(x.ndim) if i != axis])
            sums[name] = sums[name] + found if name in sums else found

        return see

    try:
        for name in names:
            handles.append(model.get_submodule(name).register_forward_pre_hook(watch(name), with_kwargs=True))
        with evaluating(model):
            for batch in images.split(_BATCH):
                call(model, batch, forward)
    finally:
        for handle in handles:
            handle.remove()
    return sums


def _strength(weight: Tensor, squares: Tensor) -> Tensor:
    """Root of what each weight contributes, shape (rows, columns), 1 on average."""
    weight = weight.detach().float()
    if len(squares) == weight.shape[1]:
        power = weight.flatten(2).square().sum(2) if weight.ndim > 2 else weight.square()
        power = power * squares
    else:  # an image was flattened: each channel is as many inputs as there were pixels
        power = weight.square() * squares
    root = power.clamp_min(0).sqrt()
    return root / root.mean().clamp_min(1e-30)


def _plan(model: nn.Module, chain: _Chain, squares: Mapping[str, Tensor]) -> Reordering:
    def of(unit: Unit) -> Tensor:
        module: Any = model.get_submodule(unit.name)
        return _strength(module.weight, squares[unit.name])

    read, made = of(chain.consumer).T, of(chain.producers[0])
    count, first = chain.channels, chain.producers[0]
    values = made[2 * count :] if chain.fused else made
    places, inner = [], []
    for start in range(0, count, chain.head):
        part = slice(start, start + chain.head)
        places.append(start + by_likeness(torch.cat([values[part], read[part]], 1)))
        if chain.fused:
            twins = torch.cat([made[part], made[count:][part]], 1)
            inner.append(start + by_likeness(twins))
    # the layer that makes them comes first, and what it keeps for its own inputs is none of theirs
    names = tuple(p.name for p in (first, *chain.producers[1:]))
    order = tuple(torch.cat(places).tolist())
    return Reordering(
        chain.consumer.name, names, chain.followers, order, tuple(torch.cat(inner).tolist()) if inner else ()
    )
