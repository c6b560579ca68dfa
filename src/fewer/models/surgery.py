"""Surgery: make a model really smaller where input channels of a layer, and what makes them, are gone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = [
    "Link",
    "Removal",
    "cut_follower",
    "cut_inputs",
    "cut_outputs",
    "cut_tensor",
    "operate",
    "read_surgery",
    "remove",
]

HEADS = ("num_heads", "heads", "num_attention_heads", "n_heads")
"""Names under which attention modules keep their number of heads."""

_WIDTHS = ("attn_dim", "all_head_size", "inner_dim", "num_features", "num_parameters")


@dataclass(frozen=True)
class Link:
    """A layer whose input channels can go, and everything that goes with them.

    Parameters
    ----------
    consumer
        The unit that loses input channels.
    producers
        Units that lose output channels, in the order of execution; depthwise ones lose filters.
    followers
        Modules between them that keep something for every channel, such as BatchNorm, or names of parameters and
        buffers that do.
    attention
        The module whose number of heads becomes smaller, or None.
    channels
        How many there are.
    size
        Channels that go together: what the hardware likes, or one attention head.
    readers
        Units that read the channels on the way and lose the same inputs, such as the first layer of a squeeze and
        excitation block.
    parts
        Where several layers make the channels side by side: for each producer, then for each follower, the first
        channel that it makes or keeps and how many. Empty where each of them makes all.

    Examples
    --------
    >>> Link("fc2", ("fc1",), (), None, 64, 16).count
    4
    """

    consumer: str
    producers: tuple[str, ...]
    followers: tuple[str, ...]
    attention: str | None
    channels: int
    size: int
    readers: tuple[str, ...] = ()
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def units(self) -> tuple[str, ...]:
        """All units that are cut, the consumer last."""
        return (*self.producers, *self.readers, self.consumer)

    @property
    def count(self) -> int:
        """How many groups of channels there are."""
        return self.channels // self.size

    @property
    def runs(self) -> tuple[int, ...]:
        """How many groups of channels each part has, in the order of the channels; one number where there is one part.

        Examples
        --------
        >>> Link("squeeze", ("one", "three"), (), None, 96, 8, parts=((0, 32), (32, 64))).runs
        (4, 8)
        """
        return tuple(length // self.size for _, length in sorted({*self.parts})) or (self.count,)

    @property
    def steps(self) -> int:
        """In how many equal steps the channels can go, when every part loses the same share.

        Examples
        --------
        >>> Link("squeeze", ("one", "three"), (), None, 96, 8, parts=((0, 32), (32, 64))).steps
        4
        """
        return math.gcd(*self.runs)

    def part_of(self, name: str) -> tuple[int, int]:
        """First channel that a producer or follower makes or keeps, and how many."""
        names = (*self.producers, *self.followers)
        return self.parts[names.index(name)] if self.parts else (0, self.channels)

    def first(self, share: float) -> tuple[int, ...]:
        """The groups that stay when a share of each part goes and the last ones of each go.

        Examples
        --------
        >>> Link("squeeze", ("one", "three"), (), None, 96, 8, parts=((0, 32), (32, 64))).first(0.5)
        (0, 1, 4, 5, 6, 7)
        >>> len(Link("proj", ("qkv",), (), None, 384, 64).first(0.1666))
        5
        """
        kept: list[int] = []
        before = 0
        for run in self.runs:
            kept += range(before, before + max(1, int((1 - share) * run + 1e-9)))
            before += run
        return tuple(kept)


@dataclass(frozen=True)
class Removal:
    """One cut: a link, and the groups of channels that stay, in rising order."""

    link: Link
    kept: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, which :func:`read_surgery` reads back."""
        return {**asdict(self.link), "kept": list(self.kept)}


def read_surgery(entries: Sequence[Mapping[str, Any]]) -> list[Removal]:
    """Cuts from the JSON values of a recipe.

    Raises
    ------
    FewerError
        When a value is missing, unknown or impossible.

    Examples
    --------
    >>> read_surgery([Removal(Link("b", ("a",), (), None, 8, 2), (0, 3)).to_dict()])[0].kept
    (0, 3)
    """
    found = []
    for entry in entries:
        try:
            values: dict[str, Any] = {k: _tuples(v) for k, v in entry.items()}
            kept = tuple(int(k) for k in values.pop("kept"))
            link = Link(**values)
            good = link.size > 0 and link.channels % link.size == 0 and bool(link.producers) and _side_by_side(link)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise FewerError(f"the recipe's surgery cannot be read ({error}); save the run again") from None
        if not good or not kept or list(kept) != sorted({*kept}) or kept[0] < 0 or kept[-1] >= link.count:
            raise FewerError(f"the recipe's surgery on {link.consumer!r} is impossible; save the run again")
        found.append(Removal(link, kept))
    return found


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def _side_by_side(link: Link) -> bool:
    """Whether the parts of a link are of whole groups and cover its channels without a gap."""
    if not link.parts:
        return True
    end = 0
    for start, length in sorted({*link.parts}):
        if start != end or length <= 0 or length % link.size:
            return False
        end = start + length
    return end == link.channels and len(link.parts) == len(link.producers) + len(link.followers)


def operate(model: nn.Module, removals: Sequence[Removal]) -> nn.Module:
    """Carry out cuts one after the other, in place, and return the model.

    Raises
    ------
    FewerError
        When the model has no such layers, or they are of other sizes.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> operate(net, [Removal(Link("2", ("0",), (), None, 8, 2), (0, 3))])[0]
    Linear(in_features=3, out_features=4, bias=True)
    """
    for removal in removals:
        try:
            remove(model, removal.link, removal.kept)
        except (AttributeError, RuntimeError, IndexError) as error:
            raise FewerError(
                f"the cut before {removal.link.consumer!r} does not fit the model: {error}; is it another architecture?"
            ) from error
    return model


@torch.no_grad()
def remove(model: nn.Module, link: Link, kept: Sequence[int]) -> None:
    """Keep only some groups of a link's channels, in place. Modules keep their identity, class and hooks."""
    at = torch.cat([torch.arange(g * link.size, (g + 1) * link.size) for g in kept])
    for name in (link.consumer, *link.readers):
        cut_inputs(model.get_submodule(name), link.channels, at)
    own = {}
    for name in (*link.producers, *link.followers):
        start, length = link.part_of(name)
        own[name] = length, at[(at >= start) & (at < start + length)] - start
    for name in link.producers:
        cut_outputs(model.get_submodule(name), *own[name])
    modules = dict(model.named_modules())
    for name in link.followers:
        if name in modules:
            cut_follower(modules[name], *own[name])
        else:
            cut_tensor(model, name, *own[name])
    if link.attention is not None:
        attention = model.get_submodule(link.attention)
        for attribute in HEADS:
            heads = getattr(attention, attribute, None)
            if isinstance(heads, int):
                setattr(attention, attribute, heads * len(at) // link.channels)
        _resize(attention, link.channels, len(at))


@torch.no_grad()
def cut_inputs(module: Any, channels: int, at: Tensor) -> None:
    """Keep only some input channels of a linear or convolution layer, in place."""
    old = module.weight
    split = old.reshape(old.shape[0], channels, -1)  # a flattened image has several columns for each channel
    linear = isinstance(module, nn.Linear)
    new = split[:, at].reshape(old.shape[0], -1) if linear else split[:, at].reshape(-1, len(at), *old.shape[2:])
    module.weight = _like(old, new)
    if linear:
        module.in_features = new.shape[1]
    else:
        module.in_channels = len(at)


@torch.no_grad()
def cut_outputs(module: Any, channels: int, at: Tensor) -> None:
    """Keep only some output channels of a linear, convolution or depthwise layer, in place."""
    times = module.weight.shape[0] // channels  # queries, keys and values in one matrix
    rows = torch.cat([at + i * channels for i in range(times)])
    module.weight = _like(module.weight, module.weight[rows])
    if module.bias is not None:
        module.bias = _like(module.bias, module.bias[rows])
    if isinstance(module, nn.Linear):
        module.out_features = len(rows)
        return
    module.out_channels = len(rows)
    if module.groups > 1:  # depthwise: the filter goes with its channel
        module.groups = module.in_channels = len(rows)


@torch.no_grad()
def cut_follower(module: nn.Module, channels: int, at: Tensor) -> None:
    """Keep only what a module holds for some channels, in place."""
    for kind in (module._parameters, module._buffers):
        for name, tensor in kind.items():
            if tensor is not None and tensor.ndim == 1 and len(tensor) == channels:
                new = tensor[at].clone()
                kind[name] = _like(tensor, new) if isinstance(tensor, nn.Parameter) else new  # type: ignore[assignment]
    _resize(module, channels, len(at))


@torch.no_grad()
def cut_tensor(model: nn.Module, name: str, channels: int, at: Tensor) -> None:
    """Keep only some channels of a parameter or buffer that holds one number for each, in place."""
    owner, _, kind = name.rpartition(".")
    module = model.get_submodule(owner)
    held: Any = module._parameters if kind in module._parameters else module._buffers
    old = held.get(kind)
    if old is None:
        raise AttributeError(f"the model has no parameter or buffer {name!r}")
    new = old.index_select(list(old.shape).index(channels), at.to(old.device))
    held[kind] = _like(old, new) if isinstance(old, nn.Parameter) else new.clone()


def _resize(module: nn.Module, before: int, after: int) -> None:
    for attribute in _WIDTHS:
        if getattr(module, attribute, None) == before:
            setattr(module, attribute, after)


def _like(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new.detach().contiguous().clone(), requires_grad=old.requires_grad)
