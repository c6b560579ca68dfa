"""``BlockSparseLinear``: a linear layer over a packed weight, with fallbacks where the native library is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import guard, native, ops
from fewer.kernels.format import PackedWeight, check, from_tensors, pack, unpack
from fewer.kernels.gather import GatherLinear

BACKENDS = ("native", "gather", "masked")
TORCH_ACTIVATIONS = {
    None: lambda x: x,
    "none": lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
}


class BlockSparseLinear(nn.Module):
    """A linear layer that multiplies only with the stored blocks of its weight.

    Backends, fastest first: ``native`` (the C++ library), ``gather`` (pure torch: one small product per strip, over
    the inputs that it uses) and ``masked`` (a dense product). Inference only.

    Parameters
    ----------
    packed : PackedWeight
        Weight and bias.
    activation : str, optional
        Applied to the output: ``gelu``, ``gelu_tanh``, ``relu``, ``relu6`` or ``silu``.
    backend : str, optional
        One of :data:`BACKENDS`; by default the native library where it is built, otherwise ``gather``.

    Raises
    ------
    FewerError
        For an unknown activation or backend, and for a corrupted weight.

    Examples
    --------
    >>> linear = nn.Linear(32, 32)
    >>> mask = torch.zeros(32, 32, dtype=torch.bool)
    >>> mask[:16, :16] = True
    >>> layer = BlockSparseLinear.from_dense(linear, mask, backend="masked")
    >>> x = torch.randn(4, 32)
    >>> torch.allclose(layer(x), F.linear(x, linear.weight * mask, linear.bias), atol=1e-5)
    True
    """

    rowptr: Tensor
    kidx: Tensor
    vals: Tensor
    bias: Tensor
    scale: Tensor
    corr: Tensor
    narrow: Tensor

    def __init__(self, packed: PackedWeight, activation: str | None = None, backend: str | None = None) -> None:
        super().__init__()
        if activation not in TORCH_ACTIVATIONS:
            known = ", ".join(str(a) for a in TORCH_ACTIVATIONS)
            raise FewerError(f"unknown activation {activation!r}; choose one of {known}")
        check(packed)
        self.out_features, self.in_features = packed.shape
        self.precision, self.width, self.units = packed.precision, packed.width, packed.units
        self.activation = activation
        for name, tensor in packed.tensors().items():
            self.register_buffer(name, tensor)
        for name, tensor in zip(("corr", "narrow"), ops.int8_tables(packed), strict=True):
            self.register_buffer(name, tensor, persistent=False)
        self._act = native.ACTIVATIONS[activation]
        self._struct: ops.NativeWeight | None = None
        self._torch: GatherLinear | Tensor | None = None
        self.backend = backend or ("native" if native.available() else "gather")
        if self.backend not in BACKENDS:
            raise FewerError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
        if self.backend == "native":
            native.library()

    @classmethod
    def from_dense(
        cls,
        linear: nn.Linear,
        mask: Tensor | None = None,
        precision: str = "fp32",
        activation: str | None = None,
        *,
        width: int | None = None,
        backend: str | None = None,
    ) -> BlockSparseLinear:
        """Pack a dense layer and its mask (bool [out, in], True where a weight is kept); see :func:`format.pack`.

        Raises
        ------
        FewerError
            For a mask of the wrong dtype or shape, or an unknown precision.

        Examples
        --------
        >>> BlockSparseLinear.from_dense(nn.Linear(8, 8), precision="bf16", backend="masked").precision
        'bf16'
        """
        packed = pack(linear.weight, mask, precision=precision, width=width, bias=linear.bias)
        return cls(packed, activation, backend)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> BlockSparseLinear:
        """Rebuild a layer from :meth:`export_state`, for example after reading safetensors.

        Raises
        ------
        FewerError
            When the tensors are corrupted or do not fit the header.

        Examples
        --------
        >>> layer = BlockSparseLinear.from_dense(nn.Linear(8, 8), backend="masked")
        >>> BlockSparseLinear.from_state(*layer.export_state()).out_features
        8
        """
        return cls(from_tensors(tensors, meta), meta.get("activation"))

    def export_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Plain tensors for safetensors, and a JSON-able header."""
        packed = self.packed()
        return packed.tensors(), {**packed.meta(), "activation": self.activation}

    def packed(self) -> PackedWeight:
        """The weight as a :class:`~fewer.kernels.format.PackedWeight`."""
        shape = (self.out_features, self.in_features)
        return PackedWeight(self.precision, shape, self.width, self.rowptr, self.kidx, self.vals, self.bias, self.scale)

    def dense(self) -> Tensor:
        """The dense fp32 weight [out, in] this layer stands for."""
        return unpack(self.packed())

    def tensors(self) -> list[Tensor]:
        """What an operator takes as this weight."""
        return [self.rowptr, self.kidx, self.vals, self.bias, self.scale, self.corr, self.narrow]

    def native_weight(self) -> ops.NativeWeight:
        """The C struct of the weight, rebuilt when a buffer has moved."""
        struct, tensors = self._struct, self.tensors()
        state = guard.state_of(tensors)
        if (
            struct is None
            or struct.state != state
            or any(a is not b for a, b in zip(struct.tensors, tensors, strict=True))
        ):
            struct = self._struct = ops.NativeWeight(tensors, (self.out_features, self.in_features), self.units)
        return struct

    def _apply(self, fn: Any, recurse: bool = True) -> BlockSparseLinear:
        """Casts and moves; see :func:`fewer.kernels.guard.keep_packed`."""
        guard.keep_packed(self, fn, type(self).__name__)
        self._struct = self._torch = None
        return self

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """``activation(x W^T + bias) + residual``: x [..., in] -> [..., out]."""
        if self.backend != "native":
            return self._forward_torch(x, residual)
        if ops.tracing(x):
            return torch.ops.fewer.sparse_linear(
                x, self.tensors(), self.out_features, self.in_features, self.units, residual, self._act
            )
        return ops.linear_direct(self.native_weight(), x, residual, self._act)

    def _forward_torch(self, x: Tensor, residual: Tensor | None) -> Tensor:
        # the weight takes the type of the input, and would be cut to whole numbers
        if not x.is_floating_point():
            raise FewerError(f"the input has dtype {x.dtype}; a packed layer takes torch.float32 and other floats")
        if self._torch is None:
            self._torch = GatherLinear(self.packed()) if self.backend == "gather" else self.dense()
        plain = self._torch
        if isinstance(plain, GatherLinear):
            y = plain(x)
        else:
            y = F.linear(x, plain.to(x.dtype), self.bias[: self.out_features].to(x.dtype))
        y = TORCH_ACTIVATIONS[self.activation](y)
        return y if residual is None else y + residual

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # Every mask has its own number of blocks, so buffers take the shape of what is loaded; then all is checked.
        names = ("rowptr", "kidx", "vals", "bias", "scale")
        given = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        if any(not isinstance(tensor, Tensor) or tensor.is_meta for tensor in given.values()):
            raise FewerError(f"the state of {prefix.rstrip('.') or 'a packed layer'} holds no numbers to load")
        given = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in given.items()}
        # checked before anything is taken over: after a state of another layer this one is as it was
        check(replace(self.packed(), **given))
        for name, tensor in given.items():
            setattr(self, name, tensor)
        if self.precision == "int8":
            self.corr, self.narrow = ops.int8_tables(self.packed())
        self._torch = self._struct = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        for name, tensor in given.items():  # assign=True puts the tensors of the caller in their place
            setattr(self, name, tensor)

    def __getstate__(self) -> dict[str, Any]:
        # Pointers do not survive a copy to another process.
        return {**self.__dict__, "_struct": None, "_torch": None}

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, precision={self.precision}, width={self.width}, "
            f"density={self.packed().density:.2f}, activation={self.activation}, backend={self.backend}"
        )
