"""A file in a runtime as a torch module: tensors in, and out what the model itself would answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels.copies import set_evaluating
from fewer.runtimes.session import Session
from fewer.runtimes.structure import rebuild

__all__ = ["RuntimeModule"]

_LEAST = 2
"""Of what is counted along a free axis: an exporter takes one alone for a size of its own."""


class RuntimeModule(nn.Module):
    """A model that onnxruntime or OpenVINO runs. For inference, on the CPU.

    A file takes inputs of one size, but for axes that are free. A batch of another length is split, the last part
    filled up; for images of another size the torch model takes over, and a warning says so.

    Parameters
    ----------
    session
        The open file.
    shapes
        Of the inputs that the file takes, batch first.
    structure
        Of the answer (:func:`fewer.runtimes.structure.describe`).
    fallback
        Gives the same model in torch, for inputs that the file does not take.
    about
        For people: runtime and precision.
    file
        The ONNX model itself, to be saved.
    precision
        Of the layers that are not integers.
    free
        Axes along which the file takes any number.
    """

    def __init__(
        self,
        session: Session,
        shapes: Sequence[Sequence[int]],
        structure: Any,
        fallback: Callable[[], nn.Module] | None = None,
        about: str = "",
        file: bytes | None = None,
        precision: str = "fp32",
        free: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.free = tuple(free)
        self.session, self.shapes, self.structure = session, [tuple(s) for s in shapes], structure
        self.about, self.file, self.precision = about, file, precision
        self._fallback, self._torch = fallback, None
        self.training = False

    def forward(self, *inputs: Tensor) -> Any:
        """The model's answer; its tensors hold no gradient."""
        if len(inputs) == len(self.shapes) and all(map(self._fits, inputs, self.shapes)):
            return rebuild(self.structure, self._run(inputs))
        batch = self.shapes[0][0]
        same = len(inputs) == len(self.shapes) and all(
            x.ndim == len(s) and self._fits(x[:1], (1, *s[1:])) and len(x) == len(inputs[0])
            for x, s in zip(inputs, self.shapes, strict=True)
        )
        if not same or any(s[0] != batch for s in self.shapes):
            return self._in_torch(inputs)
        parts = []
        for start in range(0, len(inputs[0]), batch):
            part = [x[start : start + batch] for x in inputs]
            count = len(part[0])
            if count < batch:
                part = [torch.cat([x, x[-1:].expand(batch - count, *x.shape[1:])]) for x in part]
            found = self._run(part)
            if any(t.ndim == 0 or len(t) != batch for t in found):
                return self._in_torch(inputs)  # an output that is no row for each sample cannot be put together
            parts.append([t[:count] for t in found])
        if not parts:
            return self._in_torch(inputs)
        return rebuild(self.structure, [torch.cat(column) for column in zip(*parts, strict=True)])

    def _fits(self, x: Tensor, shape: Sequence[int]) -> bool:
        """Whether the file takes an input: all sides are those of the shape, but for those that are free."""
        if x.ndim != len(shape):
            return False
        sides = enumerate(zip(x.shape, shape, strict=True))
        return all(a == b or (axis in self.free and a >= _LEAST) for axis, (a, b) in sides)

    def _run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        arrays = []
        for x in inputs:
            x = x.detach().cpu()
            arrays.append((x.float() if x.is_floating_point() else x).contiguous().numpy())
        return [torch.from_numpy(array) for array in self.session.run(arrays)]

    def _in_torch(self, inputs: Sequence[Tensor]) -> Any:
        if self._torch is None:
            wanted = " and ".join(str(list(s)) for s in self.shapes)
            got = " and ".join(str(list(x.shape)) for x in inputs)
            if self._fallback is None:
                raise FewerError(f"this model's file takes inputs of {wanted}, not {got}")
            warnings.warn(
                f"the file for {self.session.runtime} takes inputs of {wanted}; {got} are run in torch", stacklevel=3
            )
            self._torch = [
                set_evaluating(self._fallback())
            ]  # in a list: no submodule, whose weights would be counted twice
        with torch.inference_mode():
            return self._torch[0](*inputs)

    def extra_repr(self) -> str:
        return self.about

    def __deepcopy__(self, memo: dict[int, Any]) -> RuntimeModule:
        return self  # a session holds no state of its own
