"""Modules that nobody can cut or even copy as they are: refused in one sentence with the layer and the way out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from fewer.core.errors import FewerError

__all__ = ["refuse_not_finite", "refuse_strangers", "refuse_tensor", "refuse_unsaved"]

_STATISTICS = ("running_mean", "running_var")
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
    if name := _circle(model):
        raise FewerError(
            f"the model is inside of itself: its module {name!r} holds a module that it is part of, so that the model "
            "has no end; keep the reference in a list, or set it with object.__setattr__"
        )
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
                "floating point, and have its precisions planned with --precisions"
            )
        for what, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if isinstance(tensor, Tensor):
                refuse_tensor(tensor, f"the {what} of {where}")


def refuse_not_finite(model: nn.Module) -> None:
    """Refuse weights, or statistics of a normalisation, that hold NaN or infinity, wherever the output shows them.

    A head that is used in training alone, an activation that cuts off, or ``nan_to_num`` hide them from the output, and
    what is made of such a model is of no use. A constant may hold infinity, as the mask of an attention does: other
    buffers are let through, and so are parameters of somebody's own module that are not trained.

    Raises
    ------
    FewerError
        Naming the first such tensor.

    Examples
    --------
    >>> net = nn.Linear(2, 1)
    >>> _ = nn.init.constant_(net.bias, float("nan"))
    >>> refuse_not_finite(net)
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the weights of the model are broken: 1 of 1 numbers of 'bias' is NaN or infinite; ...
    """
    for name, module in model.named_modules():
        statistics = [(what, module._buffers[what]) for what in _STATISTICS if what in module._buffers]
        for what, tensor in [*module._parameters.items(), *(statistics if isinstance(module, _NormBase) else ())]:
            if (
                tensor is None
                or isinstance(tensor, UninitializedTensorMixin)
                or not (tensor.is_floating_point() or tensor.is_complex())
            ):
                continue
            values = tensor.detach()
            values = values.float() if values.element_size() == 1 else values  # torch tells nothing of eight bits
            if bool(torch.isfinite(values).all()):
                continue
            constant = not tensor.requires_grad and not type(module).__module__.startswith("torch.nn")
            wrong = int((values.isnan() if constant else ~values.isfinite()).sum())
            if wrong:
                raise FewerError(
                    f"the weights of the model are broken: {wrong:,} of {tensor.numel():,} numbers of "
                    f"{_join(name, what)!r} {'is' if wrong == 1 else 'are'} NaN or infinite; give a checkpoint from "
                    "before that happened, or repair this tensor"
                )


def refuse_unsaved(model: nn.Module) -> None:
    """Refuse a model whose state dict cannot stand for it, before anything is measured that could not be saved.

    Raises
    ------
    FewerError
        Where it renames a parameter or leaves one out, or holds something that is no tensor.

    Examples
    --------
    >>> refuse_unsaved(nn.Linear(1, 1))
    """
    state = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise FewerError(
                f"the model's state {name!r} is a {type(value).__name__}, which a file of tensors cannot hold; leave "
                "the run folder out and keep the model in memory, or make get_extra_state() return a tensor"
            )
    for name, parameter in model.named_parameters():
        if state.get(name) is not parameter:
            raise FewerError(
                f"the model's state_dict() does not hold {name!r} under that name, so that what is made of it could "
                "not be saved and loaded again; a wrapper or a hook changes the names: give the module inside of it"
            )


def _circle(model: nn.Module) -> str:
    """Name of a module that holds one that it is a part of; nothing where there is none."""
    done: set[nn.Module] = set()

    def look(module: nn.Module, above: frozenset[nn.Module], name: str) -> str:
        if module in above:
            return name.rpartition(".")[0] or name
        if module in done:
            return ""
        inside = above | {module}
        found = next(
            (hit for own, child in module.named_children() if (hit := look(child, inside, _join(name, own)))), ""
        )
        done.add(module)
        return found

    return look(model, frozenset(), "")


def _join(name: str, own: str) -> str:
    return f"{name}.{own}" if name else own


def refuse_tensor(tensor: Tensor, what: str) -> None:
    """Refuse weights that are sparse, quantized or without numbers.

    Raises
    ------
    FewerError
        With what to make of them first.

    Examples
    --------
    >>> import torch
    >>> refuse_tensor(torch.eye(2).to_sparse(), "weight")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: weight is a sparse tensor (torch.sparse_coo); make it dense first, with .to_dense()
    """
    if tensor.is_meta:
        raise FewerError(
            f"{what} lies on 'meta' and has no numbers; give it some first, with model.to_empty(device='cpu') and "
            "model.load_state_dict(...)"
        )
    if str(tensor.layout) != "torch.strided":
        raise FewerError(f"{what} is a sparse tensor ({tensor.layout}); make it dense first, with .to_dense()")
    if tensor.is_quantized:
        raise FewerError(f"{what} is quantized by torch ({tensor.dtype}); make it float first, with .dequantize()")
