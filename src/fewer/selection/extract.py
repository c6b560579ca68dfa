"""From a model to one vector per image: what stands before the classifier, the class token, or pooled feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError, near_match
from fewer.models.running import call, evaluating, input_dtype, tensors_of

__all__ = ["extractor", "pooled"]


def pooled(output: Tensor) -> Tensor:
    """One vector per image from whatever a layer gives.

    Vectors [N, d] stay. Tokens [N, T, d] give the class token where there is one beside a square grid of patches, else
    their mean. Feature maps [N, d, H, W] and [N, d, D, H, W] are averaged over their positions.

    Raises
    ------
    FewerError
        For any other shape.

    Examples
    --------
    >>> pooled(torch.zeros(2, 8, 5, 5)).shape, pooled(torch.zeros(2, 17, 8)).shape
    (torch.Size([2, 8]), torch.Size([2, 8]))
    """
    if output.ndim == 2:
        return output
    if output.ndim == 3:
        has_class_token = output.shape[1] > 1 and math.isqrt(output.shape[1] - 1) ** 2 == output.shape[1] - 1
        return output[:, 0] if has_class_token else output.mean(1)
    if output.ndim in (4, 5):
        return output.flatten(2).mean(2)
    raise FewerError(
        f"features of shape {tuple(output.shape)} are neither vectors, tokens nor maps; name a layer with --layer"
    )


def extractor(model: nn.Module, example: Tensor, layer: str | None = None) -> Callable[[Tensor], np.ndarray]:
    """Make the function that turns a batch of images into vectors.

    Parameters
    ----------
    model
        Any network; it is not changed.
    example
        One input [1, C, H, W], to see what the network does.
    layer
        The module whose output is pooled. By default the input of the last linear layer if its output is the
        network's own (a classifier), otherwise the network's output.

    Returns
    -------
    callable
        [N, C, H, W] -> [N, d] float32; threads that share the model must call it one at a time.

    Raises
    ------
    FewerError
        When the layer does not exist, is not run, or its output cannot be pooled.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> extractor(net, torch.zeros(1, 3, 2, 2))(torch.zeros(4, 3, 2, 2)).shape
    (4, 5)
    """
    names = dict(model.named_modules())
    if layer is not None and layer not in names:
        raise FewerError(f"the model has no layer {layer!r}{near_match(layer, [n for n in names if n])}")
    kind = input_dtype(model, example)
    inner = names[layer] if layer is not None else _classifier(model, example.to(kind))

    def vectors(images: Tensor) -> np.ndarray:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, inputs: tuple, output: object = None) -> None:
            found = tensors_of(inputs if layer is None else output)
            if found and found[0].shape[0] == len(images):
                seen.append(found[0])

        # the caller sees to it that no other thread runs the model meanwhile, so this hook sees its own batch only
        hook = None
        if inner is not None:
            hook = inner.register_forward_pre_hook(keep) if layer is None else inner.register_forward_hook(keep)
        try:
            with evaluating(model):
                found = tensors_of(call(model, images.to(kind)))
        finally:
            if hook is not None:
                hook.remove()
        if inner is not None and not seen:
            raise FewerError(f"the layer {layer!r} was not run on the images, so it gives no features; name another")
        values = pooled(seen[-1] if inner is not None else found[0])
        return values.to(torch.float32).cpu().numpy()

    vectors(example)
    return vectors


def _classifier(model: nn.Module, example: Tensor) -> nn.Module | None:
    """The linear layer whose output is the output of the whole network."""
    last: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _inputs: object, output: Tensor) -> None:
        last.append((module, output))

    hooks = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        with evaluating(model):
            found = tensors_of(call(model, example))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise FewerError("the model gives no tensor, so it gives no features")
    if found[0].ndim == 2 and last and last[-1][1].shape == found[0].shape and torch.equal(last[-1][1], found[0]):
        return last[-1][0]
    return None
