"""Layers that a forward pass uses more than once: a shared block, one head for several maps, a tower for two images.

A pass that pauses shows the input of the first use alone, and a repair that is fitted to it spoils the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewer.models.inputs import layer_input
from fewer.models.running import Forward, call_plainly, evaluating, model_input

__all__ = ["calls_of", "later_inputs", "with_later"]

_ROOM = 2**29
"""Bytes of later inputs that are kept of one layer; of more calls, some that are spread over all of them."""


def calls_of(
    model: nn.Module, users: Mapping[str, Iterable[nn.Module]], example: Any, forward: Forward | None = None
) -> dict[str, int]:
    """How often a forward pass calls the modules of each name.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> calls_of(nn.Sequential(layer, nn.ReLU(), layer), {"0": [layer]}, torch.ones(1, 2))
    {'0': 2}
    """
    found = dict.fromkeys(users, 0)

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            found[name] += 1

        return hook

    handles = [module.register_forward_pre_hook(count(name)) for name, many in users.items() for module in many]
    _run(model, example, forward, handles)
    return found


def later_inputs(
    model: nn.Module, users: Sequence[nn.Module], batch: Any, calls: int, forward: Forward | None = None
) -> list[Tensor]:
    """What reaches the modules of one weight after its first use, as the model is now.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> len(later_inputs(nn.Sequential(layer, layer), [layer], torch.ones(1, 2), 2))
    1
    """
    seen, found = 0, list[Tensor]()

    def hook(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal seen
        x = layer_input(inputs, keywords)
        step = max(1, -(-(calls - 1) * x.numel() * x.element_size() // _ROOM))
        if seen and (seen - 1) % step == 0:
            found.append(x.detach().clone())
        seen += 1

    _run(model, batch, forward, [user.register_forward_pre_hook(hook, with_kwargs=True) for user in users])
    return found


def _run(model: nn.Module, batch: Any, forward: Forward | None, handles: Sequence[Any]) -> None:
    try:
        with torch.no_grad(), evaluating(model):
            call_plainly(model, model_input(model, batch), forward)
    finally:
        for handle in handles:
            handle.remove()


def with_later(
    first: tuple[Sequence[Tensor], Sequence[Tensor]], later: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]]
) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """Inputs of all uses of a layer, in the dense model and now, and the batch of each.

    Parameters
    ----------
    first
        Of the first use, batch by batch; the same list twice where the dense model's rows are other ones.
    later
        For each batch those of the later uses.

    Examples
    --------
    >>> x = torch.ones(1, 2)
    >>> with_later(([x], [x + 1]), [([x, x], [x, x])])[2]
    [0, 0, 0]
    """
    wanted, inputs, batches = list(first[0]), list(first[1]), list(range(len(first[1])))
    paired = first[0] is not first[1]
    for number, (old, new) in enumerate(later):
        alike = [x.shape for x in old] == [x.shape for x in new]
        paired &= alike
        wanted += old if alike else new
        inputs += new
        batches += [number] * len(new)
    return (wanted if paired else inputs), inputs, batches
