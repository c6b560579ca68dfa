"""Modules that nobody can cut or even copy as they are: refused in one sentence with the layer and the way out."""

from __future__ import annotations

from torch import Tensor, nn
from torch.jit import ScriptModule

from fewer.core.errors import FewerError

__all__ = ["refuse_strangers"]

_PACKED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def refuse_strangers(model: nn.Module) -> None:
    """Refuse a model that is compiled to TorchScript, holds packed or sparse weights, or has no numbers at all.

    Raises
    ------
    FewerError
        Naming the first such layer, and what to give instead.

    Examples
    --------
    >>> refuse_strangers(nn.Linear(2, 1).to("meta"))
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the weight of the model lies on 'meta' and has no numbers; give it some first, ...
    """
    for name, module in model.named_modules():
        where = f"layer {name!r}" if name else "the model"
        if isinstance(module, ScriptModule):
            raise FewerError(
                f"{where} is a TorchScript module, whose forward pass cannot be watched or changed; give the Python "
                "module that it was scripted or traced from"
            )
        if type(module).__module__.startswith(_PACKED):
            raise FewerError(
                f"{where} ({type(module).__name__}) is quantized by torch and holds packed weights; give the model in "
                "floating point, and let fewer plan its precisions with --precisions"
            )
        for what, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if isinstance(tensor, Tensor):
                _refuse_tensor(tensor, f"the {what} of {where}")


def _refuse_tensor(tensor: Tensor, what: str) -> None:
    if tensor.is_meta:
        raise FewerError(
            f"{what} lies on 'meta' and has no numbers; give it some first, with model.to_empty(device='cpu') and "
            "model.load_state_dict(...)"
        )
    if str(tensor.layout) != "torch.strided":
        raise FewerError(f"{what} is a sparse tensor ({tensor.layout}); make it dense first, with .to_dense()")
    if tensor.is_quantized:
        raise FewerError(f"{what} is quantized by torch ({tensor.dtype}); make it float first, with .dequantize()")
