"""From an image to a mask: sliding window with blended borders, back on the voxels of the original file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from fewer.models.monai import import_monai
from fewer.tasks.segment.networks import scales
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.reading import Sample

__all__ = ["predict_logits", "predict_mask"]

OVERLAP = 0.5
WINDOWS = 4
"""Windows at once."""
ON_DEVICE = 256 << 20
"""Bytes of logits that may stay on an accelerator; larger volumes are put together in main memory."""


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def predict_logits(
    model: nn.Module, image: Tensor, patch: tuple[int, ...], classes: int, overlap: float = OVERLAP
) -> Tensor:
    """Logits of a prepared image.

    Parameters
    ----------
    model
        From ``(batch, channels, *space)`` to ``(batch, classes, *space)``.
    image
        Shape ``(channels, *space)``, as :meth:`Preparation.image` makes it.
    patch
        Size of the window; the image may be smaller or larger.
    classes
        Number of outputs.
    overlap
        Share of a window that its neighbour covers too.

    Returns
    -------
    Tensor
        Shape ``(classes, *space)``, on the CPU where it is large.

    Examples
    --------
    >>> net = nn.Conv2d(1, 2, 1)
    >>> predict_logits(net, torch.zeros(1, 20, 9), (8, 8), 2).shape  # doctest: +SKIP
    torch.Size([2, 20, 9])
    """
    window = import_monai("monai.inferers").sliding_window_inference
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    large = 4 * classes * prod(image.shape[1:]) > ON_DEVICE
    with _evaluating(model):
        logits = window(
            image[None],
            patch,
            WINDOWS,
            lambda batch: scales(model(batch), len(patch))[0].float(),
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device="cpu" if large else device,
        )
    return logits[0]


def predict_mask(model: nn.Module, sample: Sample, preparation: Preparation, overlap: float = OVERLAP) -> np.ndarray:
    """Class indices of a case on its own voxels, uint8 ``(*space)``.

    Raises
    ------
    FewerError
        When the image does not fit the network.
    """
    image = preparation.image(sample.image, sample.picture, sample.name)
    logits = predict_logits(model, image, preparation.patch, len(preparation.classes), overlap)
    # scores, not labels, are brought back to the original voxels: borders stay smooth
    logits = preparation.back(logits.cpu(), sample.picture)
    return logits.argmax(0).to(torch.uint8).numpy()
