"""How it is found out which layers make the input channels of a layer, and what goes with them: by trying.

Nothing is read from a traced graph. A claim "channel j of this layer's output is read by column j of that layer and by
nothing else" is tried out: those columns of the reader become zero, the channels of the maker get noise, and the
output of the model must not change by a single bit. What passes is then made smaller for real and compared once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewer.core.errors import FewerError
from fewer.core.unit import Unit
from fewer.kernels.copies import copied_module
from fewer.models.inputs import layer_input
from fewer.models.layers import channel_axis
from fewer.models.macs import model_macs
from fewer.models.matching import tied
from fewer.models.running import Forward, call, numbers_of
from fewer.models.surgery import HEADS, Link, remove

__all__ = ["Finder", "difference", "group_size", "tolerance"]

_TRIES = 4  # layers before a consumer that are tried as its producers
_FEWEST = 8  # groups of channels a link should have, for a plan to choose from
_PREFERRED = 16


def group_size(channels: int) -> int:
    """How many channels should go at once: what kernels like, as long as there are enough groups to choose from.

    Examples
    --------
    >>> group_size(1536), group_size(96), group_size(32), group_size(6)
    (16, 8, 4, 1)
    """
    size = _PREFERRED
    while size > 1 and (channels % size or channels // size < _FEWEST):
        size //= 2
    return size


@dataclass(frozen=True, eq=False)
class _Ways:
    """What is tried: a consumer whose channels go in groups of some size, and the groups that are gone.

    Where several layers make the channels side by side, ``start`` and ``length`` say which ones are a layer's.
    """

    unit: Unit
    channels: int
    size: int
    gone: Tensor
    start: int = 0
    length: int = 0

    @property
    def dead(self) -> Tensor:
        """(groups, size) bool: channels that are gone."""
        found = torch.zeros(self.channels // self.size, self.size, dtype=torch.bool)
        found[self.gone] = True
        return found

    @property
    def made(self) -> int:
        """How many channels the layers make that are tried."""
        return self.length or self.channels

    @property
    def dead_made(self) -> Tensor:
        """(made,) bool: those of them that are gone."""
        return self.dead.flatten()[self.start : self.start + self.made]


class Finder:
    """Tries out which layers make the inputs of which others, on one model and one batch."""

    def __init__(self, model: nn.Module, units: Sequence[Unit], example: Any, forward: Forward | None) -> None:
        self.model, self.example, self.forward = model, example, forward
        self.units = {unit.name: unit for unit in units}
        self.order: list[str] = []  # modules that hold something, in the order in which they ran
        self.scale: dict[str, float] = {}
        self.inputs: dict[str, Tensor] = {}  # what reaches each unit
        self.joined: dict[tuple[int, ...], None] = {}  # channels of tensors that were put side by side
        self.whole: float | None = None  # multiply-accumulates of the model

    def trace(self) -> None:
        """Run once, and note what runs when, and how large the units' outputs are."""
        handles = []

        def hook(name: str) -> Callable[..., None]:
            def keep(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
                self.order.append(name)
                if name in self.units and isinstance(output, Tensor):
                    self.scale[name] = float(output.std()) + 1e-3
                    self.inputs[name] = layer_input(inputs, keywords).detach().clone()

            return keep

        for name, module in self.model.named_modules():
            holds = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
            if holds:
                handles.append(module.register_forward_hook(hook(name), with_kwargs=True))
        try:
            with _Joins(self.joined):
                self._run()
        finally:
            for handle in handles:
                handle.remove()

    def _run(self) -> list[Tensor]:
        return [t.detach().clone() for t in numbers_of(call(self.model, self.example, self.forward))]

    def link(self, unit: Unit) -> Link | str:
        """The link before a unit, or why there is none."""
        if unit.groups > 1:
            return "its input channels are in groups"
        if tied(self.model, unit) or self.order.count(unit.name) != 1:
            return "its weight is used more than once"
        reason = "no layer before it makes its inputs, channel by channel"
        before = self.order[: self.order.index(unit.name)]
        makers = [self.units[n] for n in reversed(before) if n in self.units]
        for channels, size, attention in self._guesses(unit, makers):
            near = [m for m in makers if self._could_make(m, channels, attention, before)][:_TRIES]
            ways = _Ways(unit, channels, size, _half(channels // size))
            found, readers, quiet, mistake = self._makers(ways, near)
            reason = mistake or reason
            if found and quiet is not None:
                producers = tuple(reversed(found))
                since = before.index(producers[0])
                followers = tuple(dict.fromkeys(n for n in before[since:] if self._follows(n, channels)))
                link = Link(unit.name, producers, followers, attention, channels, size, readers)
                problem = self._trial(link, ways.gone, quiet)
                if problem is not None and (loose := self._loose(ways, link)):
                    link = replace(link, followers=(*followers, *loose))
                    problem = self._trial(link, ways.gone, quiet)
                if problem is None:
                    return link
                reason = problem
        for lengths in self.joined:
            if sum(lengths) == unit.shape[1]:
                side_by_side = self._side_by_side(unit, lengths, makers, before)
                if side_by_side is not None:
                    return side_by_side
        return reason

    def _side_by_side(
        self, unit: Unit, lengths: Sequence[int], makers: Sequence[Unit], before: Sequence[str]
    ) -> Link | None:
        """The link before a unit whose input channels several layers make, each a part of them, if there is one."""
        size = _common_size(lengths)
        producers: dict[str, tuple[int, int]] = {}
        followers: dict[str, tuple[int, int]] = {}
        gone: list[Tensor] = []
        start = 0
        for length in lengths:
            ways = _Ways(unit, sum(lengths), size, start // size + _half(length // size), start, length)
            start += length
            gone.append(ways.gone)
            likely = (m for m in makers if self._could_make(m, length, None, before) and m.name not in producers)
            near = [m for m in likely if self._reaches(ways, m.name, m.rows, changed=False)][:_TRIES]
            found, readers, quiet, _ = self._makers(ways, near)
            if not found or readers or quiet is None:
                return None
            producers |= dict.fromkeys(reversed(found), (ways.start, length))
            for name in dict.fromkeys(before[before.index(found[-1]) :]):
                if self._follows(name, length) and self._reaches(ways, name, length, changed=False):
                    followers[name] = (ways.start, length)
        order = sorted(producers, key=before.index)
        parts = (*(producers[name] for name in order), *followers.values())
        link = Link(unit.name, tuple(order), tuple(followers), None, sum(lengths), size, parts=parts)
        every = _Ways(unit, link.channels, size, torch.cat(gone))
        if link.steps < 2:
            return None
        with self._without(unit, every):
            quiet = self._run()
        return link if self._trial(link, every.gone, quiet) is None else None

    def _makers(
        self, ways: _Ways, near: Sequence[Unit]
    ) -> tuple[list[str], tuple[str, ...], list[Tensor] | None, str | None]:
        """Which layers make the channels, who else reads them, the output without them, and why none makes them."""
        found: list[str] = []
        readers: list[str] = []
        quiet: list[Tensor] | None = None
        with ExitStack() as cut:
            cut.enter_context(self._without(ways.unit, ways))
            for maker in near:
                alone = self._reaches(ways, maker.name, maker.rows, changed=bool(readers))
                if not alone and found:  # the nearest maker before a gated consumer makes the gate
                    with ExitStack() as more:
                        others = self._readers(ways, maker, readers)
                        for other in others:
                            more.enter_context(self._without(other, ways))
                        if others and self._reaches(ways, maker.name, maker.rows, changed=True):
                            alone, quiet = True, None
                            readers += [other.name for other in others]
                            cut.enter_context(more.pop_all())
                mistake = "mixed on its way"
                if alone:
                    if quiet is None:
                        quiet = self._run()
                    with self._noise(maker.name, maker.rows, ways):
                        alone = _equal(quiet, self._run())
                    mistake = "read elsewhere as well"
                if not alone:
                    return found, tuple(readers), quiet, None if found else f"what {maker.name} makes is {mistake}"
                found.append(maker.name)
        return found, tuple(readers), quiet, None

    def _reaches(self, ways: _Ways, maker: str, rows: int, *, changed: bool) -> bool:
        """Whether noise on what a module makes reaches the consumer's input in the same channels, and in no other ones.

        ``changed`` says that the consumer's input is no longer what it was in the model as it came.
        """
        usual = self._arriving(ways.unit) if changed else self.inputs[ways.unit.name]
        with self._noise(maker, rows, ways):
            return usual is not None and self._only_there(ways.unit, ways, usual)

    def _readers(self, ways: _Ways, maker: Unit, known: Sequence[str]) -> list[Unit]:
        """Layers between a maker and its consumer that read a summary of the same channels, one column for each.

        A summary, such as the mean over an image, has fewer positions than what the consumer reads. Without it a gate
        changes a little. A layer that reads the channels themselves would lose as much as the consumer does, which the
        distortion that is sensed there does not hold.
        """
        between = self.order[self.order.index(maker.name) + 1 : self.order.index(ways.unit.name)]
        found = []
        for other in (self.units[n] for n in between if n in self.units and n not in known):
            reads = other.groups == 1 and other.shape[1] == other.cols == ways.channels
            if (
                reads
                and other.positions < ways.unit.positions
                and self.order.count(other.name) == 1
                and not tied(self.model, other)
            ):
                usual = self._arriving(other) if known or found else self.inputs[other.name]
                with self._noise(maker.name, maker.rows, ways):
                    if usual is not None and self._only_there(other, ways, usual):
                        found.append(other)
        return found

    def _loose(self, ways: _Ways, link: Link) -> list[str]:
        """Parameters and buffers of no layer that hold a number for each channel, as converters from ONNX leave them.

        Noise on those numbers that are to go must reach the consumer's input in the same channels, and in no others,
        and must not reach the output.
        """
        taken = {*self.units, *link.followers}
        likely = []
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            fits = tensor.numel() == ways.channels and ways.channels in tensor.shape and tensor.is_floating_point()
            owner = name.rpartition(".")[0]
            around = not owner or any(unit.startswith(f"{owner}.") for unit in self.units)
            layers = tensor.ndim == 1 and owner in self.order and not around  # of these :meth:`_follows` has told
            if fits and not layers and owner not in taken:
                likely.append((name, tensor))
        found: list[str] = []
        if not likely:
            return found
        with ExitStack() as cut:
            for name in (link.consumer, *link.readers):
                cut.enter_context(self._without(self.units[name], ways))
            quiet, usual = self._run(), self._arriving(ways.unit)
            for name, tensor in likely:
                saved = tensor.detach().clone()
                try:
                    tensor.data.view(-1)[ways.dead.flatten()] += 1 + 3 * float(saved.abs().max())
                    if usual is not None and self._only_there(ways.unit, ways, usual) and _equal(quiet, self._run()):
                        found.append(name)
                finally:
                    tensor.data.copy_(saved)
        return found

    def _could_make(self, maker: Unit, channels: int, attention: str | None, before: Sequence[str]) -> bool:
        """Whether a layer has as many outputs as there are channels, or three times as many in attention."""
        fits = maker.rows == channels or (attention is not None and maker.rows == 3 * channels)
        once = not tied(self.model, maker) and before.count(maker.name) == 1
        return fits and once and maker.groups in (1, maker.rows)

    def _arriving(self, unit: Unit) -> Tensor | None:
        """What reaches a unit now."""
        seen: list[Tensor] = []

        def stop(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            seen.append(layer_input(inputs, keywords).detach().clone())
            raise _Enough

        handle = self.model.get_submodule(unit.name).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self._run()
        except _Enough:
            pass
        finally:
            handle.remove()
        return seen[0] if seen else None

    def _only_there(self, unit: Unit, ways: _Ways, usual: Tensor) -> bool:
        """Whether the input of a unit differs from the usual one in channels that are to be dead, and in no others."""
        seen = self._arriving(unit)
        if seen is None or seen.shape != usual.shape:
            return False
        axis = channel_axis(self.model.get_submodule(unit.name), seen)
        changed = (seen != usual).movedim(axis, 0)
        by_group = changed.reshape(ways.channels // ways.size, -1).any(dim=1)
        dead = ways.dead[:, 0]
        return bool(by_group.any()) and not bool(by_group[~dead].any())

    def _guesses(self, unit: Unit, makers: Sequence[Unit]) -> Iterator[tuple[int, int, str | None]]:
        """Channels, channels that go together, and the attention module: what could be true by the sizes."""
        inputs = unit.shape[1]
        attention, heads = self._attention(unit.name, inputs)
        if attention is not None:
            yield inputs, inputs // heads, attention
        if inputs > 1:
            yield inputs, group_size(inputs), None
        if unit.kind == "linear":  # after flattening an image, each channel is as many inputs as there were pixels
            near = next((m for m in makers if m.kind != "linear"), None)
            if near is not None and near.rows > 1 and inputs > near.rows and inputs % near.rows == 0:
                yield near.rows, group_size(near.rows), None

    def _attention(self, name: str, inputs: int) -> tuple[str | None, int]:
        """The nearest module around a layer that counts heads, and how many."""
        parent = name
        for _ in range(2):
            if not parent:
                break
            parent = parent.rpartition(".")[0]
            module = self.model.get_submodule(parent)
            for attribute in HEADS:
                heads = getattr(module, attribute, None)
                if isinstance(heads, int) and heads > 1 and inputs % heads == 0:
                    return parent, heads
        return None, 0

    def _follows(self, name: str, channels: int) -> bool:
        """Whether a module keeps one number for every channel."""
        if name in self.units:
            return False
        module = self.model.get_submodule(name)
        tensors = (*module._parameters.values(), *module._buffers.values())
        return any(t is not None and t.ndim == 1 and len(t) == channels for t in tensors)

    @contextmanager
    def _without(self, unit: Unit, ways: _Ways) -> Iterator[None]:
        """A unit without some of its columns."""
        weight: Any = self.model.get_submodule(unit.name).weight
        saved = weight.detach().clone()
        groups = ways.channels // ways.size
        less = saved.reshape(unit.rows, groups, -1).clone()  # a channels-last weight has no such view
        less[:, ways.gone] = 0
        try:
            weight.data.copy_(less.view(weight.shape))
            yield
        finally:
            weight.data.copy_(saved)

    @contextmanager
    def _noise(self, maker: str, rows: int, ways: _Ways) -> Iterator[None]:
        """Noise on those outputs of a module that are to be dead."""
        dead = ways.dead_made.repeat(rows // ways.made)
        loud = 3 * self.scale.get(maker, 1.0)

        def hook(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            if not _has_channels(module, output, rows, maker in self.units):
                return output  # a follower by its sizes alone
            generator = torch.Generator().manual_seed(1)
            noise = loud * torch.randn(output.shape, generator=generator).to(output)
            shape = [1] * output.ndim
            shape[_axis(module, output, rows, maker in self.units)] = -1
            return torch.where(dead.view(shape).to(output.device), output + noise, output)

        handle = self.model.get_submodule(maker).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def between(self, link: Link) -> float:
        """Multiply-accumulates of one sample that go with a link's channels and are no unit's."""
        if self.whole is None:
            self.whole = model_macs(self.model, self.example, self.forward)
        kept = range(link.count - len(_half(link.count)))
        small = copied_module(self.model)
        remove(small, link, kept)
        gone = 1 - len(kept) / link.count
        saved = self.whole - model_macs(small, self.example, self.forward)
        return max(0.0, saved / gone - sum(self.units[name].macs for name in link.units))

    def _trial(self, link: Link, gone: Tensor, wanted: Sequence[Tensor]) -> str | None:
        """Make the model smaller for real; None when it still computes the same, else a reason."""
        kept = [g for g in range(link.count) if g not in set(gone.tolist())]
        own = self.model
        try:
            self.model = copied_module(own)
            remove(self.model, link, kept)
            found = self._run()
        except (FewerError, RuntimeError, AttributeError, IndexError, TypeError, ValueError) as error:
            told = str(error.__cause__ or error).splitlines()[:1]
            return f"the model does not run when {link.producers[-1]} makes fewer channels ({''.join(told)})"
        finally:
            self.model = own
        if difference(wanted, found) > tolerance(wanted):
            return f"the model gives another output when {link.producers[-1]} makes fewer channels"
        return None


class _Joins(TorchFunctionMode):
    """Notes how many channels tensors had that were put side by side, whose batch is their first axis."""

    def __init__(self, found: dict[tuple[int, ...], None]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (torch.cat, torch.concat, torch.concatenate) and output.ndim > 1:
            parts = args[0] if args else (kwargs or {}).get("tensors", ())
            axes = [a for a in range(1, output.ndim) if output.shape[a] == sum(p.shape[a] for p in parts)]
            if len(parts) > 1 and len(axes) == 1:  # along the others they are alike
                self.found[tuple(p.shape[axes[0]] for p in parts)] = None
        return output


class _Enough(BaseException):
    """Ends a forward pass early; no ``except Exception`` of a model catches it."""


def _has_channels(module: nn.Module, output: Any, rows: int, layer: bool) -> bool:
    """Whether what a module gives is a tensor with a channel for each row."""
    if not isinstance(output, Tensor) or not output.ndim:
        return False
    return output.shape[_axis(module, output, rows, layer)] == rows


def _axis(module: nn.Module, output: Tensor, rows: int, layer: bool) -> int:
    """The axis of a module's output that has its channels."""
    if layer:
        return channel_axis(module, output)
    return 1 if output.ndim > 1 and output.shape[1] == rows else -1


def _common_size(lengths: Sequence[int]) -> int:
    """How many channels should go at once where parts of so many channels stand side by side."""
    size = min(group_size(length) for length in lengths)
    while size > 1 and (any(n % size for n in lengths) or math.gcd(*(n // size for n in lengths)) < _FEWEST // 2):
        size //= 2
    return size


def _half(count: int) -> Tensor:
    """Half of the groups at random, at least one; the same ones every time."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[: max(1, count // 2)]


def _equal(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def tolerance(outputs: Sequence[Tensor]) -> float:
    """Largest relative difference between a smaller model and the masked one: the same sums in another order.

    Examples
    --------
    >>> tolerance([torch.zeros(1)]), tolerance([torch.zeros(1, dtype=torch.bfloat16)])
    (0.0001, 0.03125)
    """
    return max([1e-4, *(4 * torch.finfo(t.dtype).eps for t in outputs)])


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Largest difference of two lists of outputs, relative to the largest value of each; infinite for other shapes.

    Examples
    --------
    >>> difference([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 1.0])])
    0.5
    """
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.numel():
            worst = max(worst, float((x - y).abs().max() / x.abs().max().clamp_min(1e-12)))
    return worst if worst == worst else float("inf")
