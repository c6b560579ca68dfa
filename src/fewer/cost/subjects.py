"""What is timed for each layer: the very kernels that ``accelerate`` would choose from, on what reaches the layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.option import Option
from fewer.core.precision import precision_of
from fewer.core.unit import Unit
from fewer.kernels import native
from fewer.kernels.accelerate import capture_inputs
from fewer.kernels.candidates import linear_candidates, sparse_candidates
from fewer.kernels.chains import Chain, chain_candidates, find_chains
from fewer.kernels.conv import is_depthwise
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.kernels.fuse import find_runs, trace
from fewer.kernels.plain import plain_convolutions
from fewer.kernels.stages import NativeChain, Stage
from fewer.kernels.transformer import PATHS, why_not_a_block
from fewer.models.matching import tied
from fewer.models.surgery import cut_follower, cut_inputs, cut_outputs

__all__ = ["AS_IT_CAME", "Subject", "find_subjects", "random_mask", "runs_as"]

AS_IT_CAME = "as it came"
"""The way in which a layer runs in the model that was given: dense, in torch."""

Runnable = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Subject:
    """One layer to be timed.

    Attributes
    ----------
    name : str
        Of the unit.
    key : str
        What its times depend on; layers with the same key are timed once.
    fused : bool
        Whether it is part of a transformer block that runs as one native call, and so has no other fast way.
    module : nn.Module
        The layer.
    chain : Chain, optional
        Of a convolution: what runs with it.
    x : Tensor
        An input.
    stage : Stage, optional
        Of a convolution that runs as a part of a native chain: the stage of that chain which it belongs to. What is
        timed is the whole stage, in which only this layer changes.
    share : float
        Of the stage's multiply-accumulates.
    stage_x : Tensor, optional
        An input of the stage.
    """

    name: str
    key: str
    fused: bool
    module: Any
    chain: Chain | None
    x: Tensor
    stage: Stage | None = None
    share: float = 1.0
    stage_x: Tensor | None = None

    def as_it_came(self) -> Runnable:
        """The layer in torch, with what is fused into it later (BatchNorm, activation)."""
        chain, x, module = self.chain, self.x, self.module
        return (lambda: chain.dense(x)) if chain is not None else (lambda: module(x))

    def ways(self, mask: Tensor | None, precision: str) -> dict[str, Runnable]:
        """Every other way to run it at a precision, by the names that :func:`accelerate` gives them."""
        if self.stage is not None and self.stage_x is not None:
            image, depthwise = self.stage_x, is_depthwise(self.module)
            masks = {} if mask is None or depthwise else {self.name: mask}
            run = NativeChain([self.stage], masks, {} if depthwise else {self.name: precision})
            return {self.stage_way(precision): lambda: run(image)}
        if self.chain is not None:
            x = self.x.contiguous(memory_format=torch.channels_last)
            found, _ = chain_candidates(self.chain, mask, precision)
            return {name: (lambda layer=layer: layer(x)) for name, layer in found.items()}
        if hasattr(self.module, "by_offset"):
            x, found = self.x, sparse_candidates(self.module, mask, precision)
        elif type(self.module) is nn.Linear:
            x, found = self.x, linear_candidates(self.module, mask, precision)
        else:
            return {}
        made = {name: (lambda layer=layer: layer(x)) for name, layer in found.items() if layer is not self.module}
        return {name: run for name, run in made.items() if not self.fused or name.startswith("native")}

    def stage_way(self, precision: str) -> str:
        """Name of the way to run it inside of its stage."""
        return "native chain depthwise fp32" if is_depthwise(self.module) else f"native chain {precision}"

    @property
    def lone(self) -> Subject:
        """The layer outside of its stage."""
        return self if self.stage is None else replace(self, fused=False, stage=None, share=1.0, stage_x=None)

    def smaller(self, side: str, sparsity: float) -> Subject:
        """The same layer with fewer input (``columns``) or output (``rows``) channels, on as much less input.

        Widths are multiples of 8 where the layer is wide enough for that.
        """
        depthwise = getattr(self.module, "groups", 1) > 1
        axis = 1 if hasattr(self.module, "stride") else -1
        channels = self.x.shape[axis] if side == "columns" else self.module.weight.shape[0]
        step = 8 if channels >= 64 else 1
        at = torch.arange(max(step, round((1 - sparsity) * channels / step) * step))
        module, x, chain = copy.deepcopy(self.module), self.x, self.chain
        if side == "columns" or depthwise:
            x = x.index_select(axis, at).contiguous()
        if side == "columns":
            cut_inputs(module, channels, at)
        else:
            cut_outputs(module, channels, at)
        if chain is not None:
            followers = copy.deepcopy(chain.modules[1:])
            for follower in followers if side == "rows" else ():
                cut_follower(follower, channels, at)
            chain = replace(chain, modules=(module, *followers))
        return replace(self, module=module, chain=chain, x=x)


def runs_as(precision: str) -> str:
    """The precision that kernels run a stored one at.

    Examples
    --------
    >>> runs_as("int4"), runs_as("fp32")
    ('int8', 'fp32')
    """
    return precision_of(precision).runs_as


def find_subjects(model: nn.Module, units: Sequence[Unit], example: Any) -> list[Subject]:
    """The layers of some units, with inputs of the sizes that reach them from an example.

    Parameters
    ----------
    model
        In evaluation mode; left as it is.
    units
        Units that the example does not reach, or whose weight other layers hold as well, are left out.
    example
        Tensor, or tuple of the model's arguments; its first dimension is the batch.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(8, 4)).eval()
    >>> find_subjects(net, [Unit("0", "linear", (4, 8))], torch.zeros(3, 8))[0].key
    'Linear 4x8 on 3x8'
    """
    names = [unit.name for unit in units if not tied(model, unit)]
    model = plain_copy(model, example)
    chains = find_chains(model)
    blocks = [n for n, m in model.named_modules() if hasattr(m, "attn") and hasattr(m, "mlp")]
    fused = set()
    if native.available():
        fused = {f"{b}.{p}" for b in blocks if why_not_a_block(model.get_submodule(b)) is None for p in PATHS.values()}
    stages = _stages(model)
    first = {stage.units[0].name for stage in stages.values()}
    with torch.no_grad():
        inputs = capture_inputs(model, example, set(names) | first)
    found = []
    for name in names:
        module: Any = model.get_submodule(name)
        if name in inputs and hasattr(module, "by_offset"):
            # a copy keeps the rulebook of this very input, while the layer is run on others
            found.append(
                Subject(name, _key(module, None, inputs[name], False), False, module.by_offset(), None, inputs[name])
            )
            continue
        if name not in inputs or not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            continue
        chain, x = chains.get(name), inputs[name]
        stage = stages.get(name)
        if stage is None or chain is None:
            found.append(Subject(name, _key(module, chain, x, name in fused), name in fused, module, chain, x))
            continue
        image = inputs[stage.units[0].name].contiguous(memory_format=torch.channels_last)
        key = f"{_key(module, chain, x, False)} in a stage {_geometry(stage)}"
        found.append(Subject(name, key, True, module, chain, x, stage, _share(stage, name, image), image))
    return found


def plain_copy(model: nn.Module, example: Any) -> nn.Module:
    """The model with plain convolutions in the place of those that only pad; the model itself where there are none."""
    if not any(isinstance(m, nn.Conv2d) and type(m) is not nn.Conv2d for m in model.modules()):
        return model
    call = (lambda m: m(*example)) if isinstance(example, tuple) else (lambda m: m(example))
    return plain_convolutions(set_evaluating(copied_module(model)), call)


def _stages(model: nn.Module) -> dict[str, Stage]:
    """The stages of the chains that :func:`accelerate` would make, by the names of their layers."""
    if not native.available() or not any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules()):
        return {}
    traced = trace(model)
    runs = [] if traced is None else find_runs(traced)
    return {unit.name: stage for run in runs for stage in run.stages for unit in stage.units}


def _geometry(stage: Stage) -> str:
    """What the time of a stage depends on, beside its input: kernels, strides, widths and activations of its parts."""
    parts = []
    for unit in stage.units:
        conv = unit.conv
        widths = "x".join(map(str, conv.weight.shape))
        parts.append(f"{widths}/{conv.stride[0]}{'' if unit.activation is None else ' ' + unit.activation}")
    return "+".join(parts).replace(" ", "-") + ("+residual" if stage.residual else "")


def _share(stage: Stage, name: str, image: Tensor) -> float:
    """Share of a layer in the multiply-accumulates of its stage."""
    macs = dict(zip((unit.name for unit in stage.units), stage.macs((image.shape[-2], image.shape[-1])), strict=True))
    return macs[name] / sum(macs.values())


def _key(module: Any, chain: Chain | None, x: Tensor, fused: bool) -> str:
    shape = "x".join(map(str, module.weight.shape))
    text = f"{type(module).__name__} {shape} on {'x'.join(map(str, x.shape))}"
    if hasattr(module, "stride"):
        geometry = (module.stride, module.padding, module.dilation, getattr(module, "groups", 1))
        text += " " + " ".join(str(g).replace(" ", "") for g in geometry)
    if getattr(module, "rules", None) is not None:
        text += f" {module.rules.count} pairs"
    if chain is not None and len(chain.modules) > 1:
        text += " " + "+".join(type(m).__name__ for m in chain.modules[1:])
    return text + (" in a block" if fused else "")


def random_mask(shape: Sequence[int], option: Option, seed: int = 0) -> Tensor:
    """A mask of a weight with an option's tiles, chosen at random, and its share of them pruned.

    Examples
    --------
    >>> float(random_mask((32, 32), Option("block:16x4", 0.5)).float().mean())
    0.5
    """
    from fewer.patterns import Pattern, select_mask, to_weight

    rows, cols = shape[0], torch.Size(shape[1:]).numel()
    score = torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed))
    return to_weight(select_mask(score, Pattern.parse(option.pattern), option.sparsity), shape)
