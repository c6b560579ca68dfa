"""A whole pre-norm transformer block as one native call, and the rewrite that finds such blocks by their structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import guard, native, ops
from fewer.kernels.format import pack
from fewer.kernels.linear import BlockSparseLinear

LAYERS = ("qkv", "proj", "fc1", "fc2")
PATHS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
# Children a block may have; those of the second set must do nothing at inference.
_CHILDREN = {
    "": ({"norm1", "attn", "norm2", "mlp", "ls1", "ls2"}, {"drop_path", "drop_path1", "drop_path2"}),
    "attn": ({"qkv", "proj"}, {"q_norm", "k_norm", "attn_drop", "proj_drop", "norm"}),
    "mlp": ({"fc1", "act", "fc2"}, {"drop", "drop1", "drop2", "norm"}),
}
_IDLE = ("Identity", "Dropout", "DropPath")
_GELU_FORMS = {"none": "gelu", "tanh": "gelu_tanh"}


def activation_of(module: nn.Module) -> str | None:
    """The native name of an activation module; None when there is none."""
    if isinstance(module, nn.GELU):
        return _GELU_FORMS[module.approximate]
    return {nn.ReLU: "relu", nn.SiLU: "silu", nn.ReLU6: "relu6"}.get(type(module))


def why_not_a_block(block: nn.Module) -> str | None:
    """Why a module is not a pre-norm transformer block that the native kernel can run; None when it is one.

    The test is by structure and names (those of timm): norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.act, mlp.fc2,
    optionally ls1 and ls2 with a ``gamma``, and modules that do nothing at inference.

    Examples
    --------
    >>> why_not_a_block(nn.Linear(2, 2))
    'it has no norm1'
    """
    for prefix, (needed, idle) in _CHILDREN.items():
        try:
            parent = block.get_submodule(prefix)
        except AttributeError:
            return f"it has no {prefix}"
        names = dict(parent.named_children())
        for name in sorted(needed - {"ls1", "ls2"}, key=list(needed).index):
            if name not in names:
                return f"it has no {'norm1' if prefix == '' and 'norm1' not in names else name}"
        for name, child in names.items():
            if name in idle and type(child).__name__ in _IDLE:
                continue
            if name not in needed:
                return f"{prefix + '.' if prefix else ''}{name} ({type(child).__name__}) has no native form"
    for path in ("norm1", "norm2"):
        norm = block.get_submodule(path)
        if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
            return f"{path} is not an affine LayerNorm"
    for path in PATHS.values():
        if not isinstance(block.get_submodule(path), nn.Linear):
            return f"{path} is not a linear layer"
    for name in ("ls1", "ls2"):
        scale = getattr(block, name, None)
        if (
            scale is not None
            and not isinstance(scale, nn.Identity)
            and not isinstance(getattr(scale, "gamma", None), Tensor)
        ):
            return f"{name} ({type(scale).__name__}) has no gamma"
    if activation_of(block.get_submodule("mlp.act")) is None:
        return f"mlp.act ({type(block.get_submodule('mlp.act')).__name__}) has no native form"
    qkv: Any = block.get_submodule("attn.qkv")
    proj: Any = block.get_submodule("attn.proj")
    heads = heads_of(block)
    if heads is None:
        return "attn has neither num_heads nor heads"
    if qkv.out_features != 3 * proj.in_features or proj.in_features % heads:
        return f"attn.qkv has {qkv.out_features} outputs, not three times the {proj.in_features} inputs of attn.proj"
    return None


def heads_of(block: nn.Module) -> int | None:
    attention = block.get_submodule("attn")
    heads = getattr(attention, "num_heads", None) or getattr(attention, "heads", None)
    return heads if isinstance(heads, int) else None


def _scaled(linear: nn.Linear, gamma: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with the layer scale that follows folded in."""
    if gamma is None:
        return linear.weight, linear.bias
    return linear.weight * gamma[:, None], None if linear.bias is None else linear.bias * gamma


class NativeBlock(nn.Module):
    """A pre-norm transformer block whose linear layers are packed, run by one native call.

    LayerNorm is fused into the preparation of activations, GELU and the residual additions into the products, and
    layer scale into the weights. Between the layers activations stay in the low precision. Inference only.

    Parameters
    ----------
    layers : mapping of str to BlockSparseLinear
        ``qkv``, ``proj``, ``fc1``, ``fc2``.
    norms : sequence of Tensor
        Weight and bias of the first and the second LayerNorm.
    eps : tuple of float
        Their epsilons.
    heads : int
        Attention heads.
    scale : float
        Of the attention scores.
    activation : str
        Between fc1 and fc2.

    Raises
    ------
    FewerError
        Where the native library was not built.

    Examples
    --------
    >>> NativeBlock.from_block(block, {"mlp.fc1": mask}, precision="int8")  # doctest: +SKIP
    """

    def __init__(
        self,
        layers: Mapping[str, BlockSparseLinear],
        norms: tuple[Tensor, Tensor, Tensor, Tensor],
        eps: tuple[float, float],
        heads: int,
        scale: float,
        activation: str,
    ) -> None:
        super().__init__()
        native.library()
        for name in LAYERS:
            self.add_module(name, layers[name])
        for name, tensor in zip(("norm1_weight", "norm1_bias", "norm2_weight", "norm2_bias"), norms, strict=True):
            self.register_buffer(name, tensor.detach().to(torch.float32).contiguous().clone())
        self.eps, self.heads, self.scale, self.activation = eps, heads, scale, activation
        self.width = layers["qkv"].in_features
        self._act = native.ACTIVATIONS[activation]
        # activations between the layers are as precise as the coarsest layer needs
        self._mode = 0 if all(layer.precision == "fp32" for layer in layers.values()) else 1

    @classmethod
    def from_block(
        cls,
        block: nn.Module,
        masks: Mapping[str, Tensor] | None = None,
        precision: str | Mapping[str, str] = "fp32",
    ) -> NativeBlock:
        """Convert a block; ``masks`` by the names ``attn.qkv``, ``attn.proj``, ``mlp.fc1``, ``mlp.fc2``.

        ``precision`` is one for all four layers, or one for each by the same names (fp32 where there is none).

        Raises
        ------
        FewerError
            When the block has another structure; the sentence says what is different.
        """
        reason = why_not_a_block(block)
        if reason:
            raise FewerError(f"{type(block).__name__} is not a block that the native kernel can run: {reason}")
        masks = masks or {}
        gammas = {"proj": "ls1", "fc2": "ls2"}
        layers = {}
        for name, path in PATHS.items():
            linear: Any = block.get_submodule(path)
            scale = getattr(block, gammas.get(name, ""), None)
            gamma = getattr(scale, "gamma", None)
            weight, bias = _scaled(linear, gamma)
            wanted = precision if isinstance(precision, str) else precision.get(path, "fp32")
            packed = pack(weight, masks.get(path), precision=wanted, bias=bias)
            layers[name] = BlockSparseLinear(packed, backend="native")
        norm1: Any = block.get_submodule("norm1")
        norm2: Any = block.get_submodule("norm2")
        heads = heads_of(block)
        assert heads is not None
        attention: Any = block.get_submodule("attn")
        scale = getattr(attention, "scale", None)
        if not isinstance(scale, float):
            scale = (layers["proj"].in_features // heads) ** -0.5
        activation = activation_of(block.get_submodule("mlp.act"))
        assert activation is not None
        norms = (norm1.weight, norm1.bias, norm2.weight, norm2.bias)
        return cls(layers, norms, (norm1.eps, norm2.eps), heads, scale, activation)

    def _apply(self, fn: Any, recurse: bool = True) -> NativeBlock:
        """Casts and moves; see :func:`fewer.kernels.guard.keep_packed`."""
        for layer in self._linears():
            layer._apply(fn)
        guard.keep_packed(self, fn, type(self).__name__)
        return self

    def _linears(self) -> list[BlockSparseLinear]:
        return [self.qkv, self.proj, self.fc1, self.fc2]  # type: ignore[list-item]

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x float32 [batch, tokens, width] -> the same shape; ``bias`` [batch, tokens] goes on each key's scores."""
        if x.ndim != 3 or x.shape[-1] != self.width or x.dtype != torch.float32:
            raise FewerError(
                f"a native block needs float32 [batch, tokens, {self.width}]; got {x.dtype} {tuple(x.shape)}"
            )
        linears = self._linears()
        norms: list[Any] = [self.norm1_weight, self.norm1_bias, self.norm2_weight, self.norm2_bias]
        if ops.tracing(x):
            weights = [t for li in linears for t in li.tensors()]
            sizes = [n for li in linears for n in (li.out_features, li.in_features, li.units)]
            return torch.ops.fewer.vit_block(
                x, weights, sizes, norms, list(self.eps), self.heads, self.scale, self._mode, self._act, bias
            )
        ops.rows_of(x, self.width)
        weights = [linear.native_weight() for linear in linears]
        return ops.block_direct(x, weights, norms, self.eps, self.heads, self.scale, self._mode, self._act, bias)

    def extra_repr(self) -> str:
        return f"width={self.width}, heads={self.heads}, activation={self.activation}"


def disagreement(block: nn.Module, candidate: nn.Module, width: int, tokens: int = 7) -> float:
    """Relative difference of two blocks on the same random tokens: catches the same names with other mathematics.

    Infinite where the block does not take so many tokens: one with relative positions (BEiT) knows only its own number.

    Examples
    --------
    >>> disagreement(nn.Identity(), nn.Identity(), 4)
    0.0
    """
    x = torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            expected = block(x)
        except Exception:  # whatever a stranger's block raises
            return float("inf")
        got = candidate(x)
    if not isinstance(expected, Tensor) or expected.shape != got.shape:
        return float("inf")
    change = (expected - x).norm().clamp_min(1e-12)
    return float((got - expected).norm() / change)
