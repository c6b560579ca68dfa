"""Match: which layers of a model can be compressed, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewer.models.coupling import find_links
from fewer.models.matching import match
from fewer.models.running import input_dtype
from fewer.models.spec import load_untouched
from fewer.patterns import with_columns

__all__ = ["match_table"]


def match_table(model: Any, images: Any = None, exclude: Sequence[str] = (), pattern: str = "") -> list[dict[str, str]]:
    """Rows ``layer kind shape positions macs status`` of a model, without any sensing.

    Where the pattern asks for columns, matched rows also have ``channels``: in what groups a layer's input channels
    can be removed and what goes with them, or why they cannot.

    Parameters
    ----------
    model
        Spec or module.
    images
        A tensor whose first row is used as the example; by default one input of the model's own size.
    exclude
        Shell patterns of layers to leave alone.
    pattern
        As in :class:`Settings`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> match_table(nn.Linear(4, 2), torch.zeros(1, 4))[0]["status"]
    'matched'
    """
    import torch

    loaded = load_untouched(model)
    example = images[:1] if isinstance(images, torch.Tensor) else torch.zeros(1, *loaded.input_size)
    example = example.to(input_dtype(loaded.model, example))
    matched = match(loaded.model, example, exclude=tuple(exclude))
    rows = matched.table()
    if with_columns(pattern):
        # a constant image would not tell whether two layers see the same thing
        noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example.dtype)
        couplings = find_links(loaded.model, matched.units, noise)
        for row, unit in zip(rows, matched.units, strict=False):  # units come first
            row["channels"] = couplings.told(unit.name)
    return rows
