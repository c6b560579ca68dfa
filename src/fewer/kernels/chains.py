"""Convolution, BatchNorm and activation that follow each other in a ``Sequential``, and the fast ways to run them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewer.kernels import native
from fewer.kernels.conv import BlockSparseConv2d, NativeDepthwise, is_depthwise, why_not_a_conv
from fewer.kernels.dense import DenseBF16, DenseFolded
from fewer.kernels.plain import Padded, padding_of
from fewer.kernels.transformer import activation_of

DENSE = "dense fp32"


@dataclass(frozen=True)
class Chain:
    """A convolution and what follows it.

    Attributes
    ----------
    name : str
        Name of the convolution.
    modules : tuple of nn.Module
        The convolution, then BatchNorm and activation where they follow.
    followers : tuple of str
        Names of the modules after the convolution.
    """

    name: str
    modules: tuple[nn.Module, ...]
    followers: tuple[str, ...]

    def dense(self, x: Tensor) -> Tensor:
        """What the modules compute."""
        for module in self.modules:
            x = module(x)
        return x

    @property
    def activation(self) -> str | None:
        """Native name of the activation at the end."""
        return activation_of(self.modules[-1]) if len(self.modules) > 1 else None

    def folded(self) -> nn.Conv2d:
        """The convolution with the BatchNorm folded into weight and bias."""
        conv: nn.Conv2d = copy.deepcopy(self.modules[0])  # type: ignore[assignment]
        conv._forward_pre_hooks.clear()  # what a hook pads is padded before the kernel
        norm = next((m for m in self.modules if isinstance(m, nn.BatchNorm2d)), None)
        if norm is None:
            return conv
        assert norm.running_mean is not None and norm.running_var is not None
        factor = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            factor = factor * norm.weight
        bias = torch.zeros_like(factor) if conv.bias is None else conv.bias
        shift = 0 if norm.bias is None else norm.bias
        conv.weight = nn.Parameter(conv.weight * factor[:, None, None, None], requires_grad=False)
        conv.bias = nn.Parameter((bias - norm.running_mean) * factor + shift, requires_grad=False)
        return conv


def find_chains(model: nn.Module) -> dict[str, Chain]:
    """The chain that starts at each convolution of a model, by the name of the convolution.

    Only a ``Sequential`` proves that modules follow each other; elsewhere a convolution is a chain of one.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    >>> find_chains(net)["0"].followers
    ('1', '2')
    """
    found = {name: Chain(name, (m,), ()) for name, m in model.named_modules() if type(m) is nn.Conv2d}
    for parent, sequence in model.named_modules():
        if type(sequence) is not nn.Sequential:
            continue
        children = list(sequence.named_children())
        prefix = parent + "." if parent else ""
        for at, (key, conv) in enumerate(children):
            if type(conv) is not nn.Conv2d:
                continue
            modules: list[nn.Module] = [conv]
            names: list[str] = []
            for next_key, module in children[at + 1 :]:
                norm = isinstance(module, nn.BatchNorm2d) and len(modules) == 1 and module.running_mean is not None
                if not norm and activation_of(module) is None:
                    break
                modules.append(module)
                names.append(prefix + next_key)
                if not norm:
                    break
            found[prefix + key] = Chain(prefix + key, tuple(modules), tuple(names))
    return found


def chain_candidates(chain: Chain, mask: Tensor | None, precision: str) -> tuple[dict[str, nn.Module], str]:
    """Every way to run a chain except the original one, and why some are missing (or an empty string)."""
    conv, activation, pad = chain.folded(), chain.activation, padding_of(chain.modules[0])
    last = chain.modules[-1] if activation else None
    found: dict[str, nn.Module] = {}
    if len(chain.modules) > 1:
        found["dense folded fp32"] = DenseFolded(conv, last)
    missing = ""
    if not native.available():
        missing = "the native kernels are not built"
    elif is_depthwise(conv):
        found["native depthwise fp32"] = NativeDepthwise(conv, activation)
        missing = "a depthwise filter has no sparse form"
    else:
        used = "bf16" if precision == "int8" and why_not_a_conv(conv, "int8") else precision
        missing = why_not_a_conv(conv, used) or ""
        if not missing:
            found[f"native {used}"] = BlockSparseConv2d.from_dense(conv, mask, used, activation)
    if precision != "fp32":
        found["dense bf16"] = DenseFolded(DenseBF16(conv), last)
    return found if pad is None else {name: Padded(pad, module) for name, module in found.items()}, missing
