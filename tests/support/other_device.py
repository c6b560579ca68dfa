"""A pretended accelerator: tensors that say they live on ``meta`` and mix with those of the CPU as little as real ones.

Values are computed on the CPU. What a GPU refuses is refused: an operation on tensors of both devices (but for single
numbers and indices), ``numpy()`` of what was not brought back. So a test without a GPU can find what was forgotten.

The name is ``meta`` because a build of torch without CUDA makes no tensor that says ``cuda``; these have values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
_INDEX = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_COPY = {"aten::copy_", "aten::_to_copy"}


class Other(torch.Tensor):
    """A tensor of the pretended device; ``inner`` is the one that computes."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Other:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Other({tuple(self.shape)})"


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Other)]
    here = [t for t in tensors if not isinstance(t, Other)]
    wanted = kwargs.get("device")
    if there and any(t.device.type == DEVICE.type for t in here):
        raise RuntimeError(f"{name}: torch made a number of its own on the pretended device; assign on the CPU")
    if there and name not in _COPY:
        mixing = [t for t in here if t.ndim] if name not in _INDEX else here[:1] if here and here[0] is args[0] else []
        if mixing:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found another and cpu ({name})")
    plain = dict(kwargs)
    if wanted is not None:
        plain["device"] = torch.device("cpu")
    result = func(*tree_map(_inner, args), **tree_map(_inner, plain))
    if name == "aten::copy_":
        return args[0]
    stays = bool(there) if wanted is None else torch.device(wanted).type == DEVICE.type
    if not stays or name == "aten::_local_scalar_dense":
        return result
    wrapped = tree_map(lambda t: Other(t) if isinstance(t, torch.Tensor) else t, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Other) else value


@contextmanager
def other_device() -> Iterator[None]:
    """Within this, ``device="meta"`` is the pretended device."""
    with _Mode():
        yield
