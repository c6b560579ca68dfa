"""The held-out images that a compressed model is farthest off on, and what it says of them before and after."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.reading import nested
from fewer.distortion.outputs import dimension_of_classes, output_tensors
from fewer.engine.judge import Judge
from fewer.models.running import call, evaluating

if TYPE_CHECKING:
    from pathlib import Path

    from fewer.engine.prepare import Prepared

__all__ = ["SHOWN", "worst_images"]

SHOWN, TOP = 3, 5
SIDE = 160
"""Pixels of a picture in the report."""

# colours of the classes of a map: neighbours in this list are told apart by people who do not see all colours
_COLOURS = np.array(
    [(32, 36, 44), (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)],
    dtype=np.uint8,
)


def worst_images(prepared: Prepared, judge: Judge, model: nn.Module, changes: Tensor) -> list[dict[str, Any]]:
    """Look at the images whose output changed most, one crop of each file.

    Parameters
    ----------
    prepared
        The original model, and the held-out samples.
    judge
        Says whether outputs are scores of classes.
    model
        The compressed one.
    changes
        Change of the output of each held-out sample.

    Returns
    -------
    list of dict
        Entries of the report's ``worst``, the worst first. Empty where a sample is no picture, or an output is not that
        of one sample.
    """
    samples = prepared.heldout.tensor
    if samples is None or samples.ndim != 4 or samples.shape[1] not in (1, 3):
        return []
    if len(changes) != len(samples):  # the first dimension of the output is not that of the images
        return []
    rows = _rows(changes, prepared.heldout.files)
    chosen = prepared.heldout[rows]
    before, after = (_outputs(one, chosen, prepared) for one in (prepared.model, model))
    files = chosen.files
    entries = []
    for i, row in enumerate(rows):
        entry: dict[str, Any] = {
            "file": files[i].name if files else f"image {row + 1}",
            "picture": _encode(_picture(samples[row], prepared)),
            "distortion": float(changes[row]),
        }
        entries.append(entry | _said(before[i], after[i], judge.classes, _names(prepared)))
    return entries


def _rows(changes: Tensor, files: Sequence[Path]) -> list[int]:
    """Samples of the largest change, one of each file: crops of one picture would say the same again."""
    rows: dict[Any, int] = {}
    for row in changes.argsort(descending=True, stable=True).tolist():
        rows.setdefault(files[row] if files else row, row)
    return list(rows.values())[:SHOWN]


@torch.no_grad()
def _outputs(model: nn.Module, samples: Any, prepared: Prepared) -> list[Tensor]:
    """The first output for each sample."""
    with evaluating(model):
        found = [output_tensors(call(model, one, prepared.forward))[0] for one in samples.split(1)]
    # a model may give one number for a whole batch, which has no dimension for samples
    return [(out[0] if out.ndim else out).float().cpu() for out in found]


def _said(before: Tensor, after: Tensor, classes: bool, names: Sequence[str]) -> dict[str, Any]:
    """What stands beside a picture: first classes, or outputs as pictures, where an output is one."""
    if classes:
        return {"before": _top(before, names), "after": _top(after, names)}
    pictures = _maps(before, after) if before.ndim == 3 else _tokens(before, after) if before.ndim == 2 else None
    return {} if pictures is None else dict(zip(("before_map", "after_map"), map(_encode, pictures), strict=True))


def _top(scores: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """The most probable classes; scores become probabilities, unless the model has made them so itself."""
    shares = scores.flatten()
    shares = shares if dimension_of_classes(shares[None]) is not None else shares.softmax(0)
    found = shares.topk(min(TOP, len(shares)))
    return [
        {"label": names[i] if i < len(names) else f"class {i}", "share": float(share)}
        for share, i in zip(found.values, found.indices.tolist(), strict=True)
    ]


def _names(prepared: Prepared) -> Sequence[str]:
    """Names of the classes, where the model was trained here and keeps them."""
    found = nested(prepared.loaded.meta, "classify", "classes")
    return [str(one) for one in found] if isinstance(found, (list, tuple)) else []


def _maps(before: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Maps [channels, height, width]: one channel in grey, several as the strongest one's colour."""
    if before.shape[0] > 1:
        return tuple(_COLOURS[one.argmax(0).numpy() % len(_COLOURS)] for one in (before, after))  # type: ignore[return-value]
    low, high = float(before.min()), float(before.max())
    grey = [((one[0] - low) / max(high - low, 1e-12)).clamp(0, 1).numpy() for one in (before, after)]
    return tuple(np.repeat((255 * one).astype(np.uint8)[..., None], 3, 2) for one in grey)  # type: ignore[return-value]


def _tokens(before: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Tokens [tokens, width] of a square of patches: their three strongest directions as red, green and blue.

    Directions and scale are those of the dense model, so that the same colour means the same feature in both pictures.
    """
    side = isqrt(len(before))
    front = len(before) - side * side  # tokens of the class, and registers
    if side < 4 or front > 8:
        return None
    rows = before[front:].double()
    mean = rows.mean(0)
    _, _, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    directions = directions[:3]
    # the sign of a direction is arbitrary: its largest entry is taken as positive, so that pages are repeatable
    directions = directions * directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    flat = [(one[front:].double() - mean) @ directions.T for one in (before, after)]
    low, high = flat[0].quantile(0.02, 0), flat[0].quantile(0.98, 0)
    shades = [((one - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).view(side, side, -1) for one in flat]
    return tuple((255 * one).to(torch.uint8).numpy() for one in shades)  # type: ignore[return-value]


def _picture(sample: Tensor, prepared: Prepared) -> np.ndarray:
    """The pixels that the model saw, with scale and mean of its preprocessing undone."""
    channels = sample.shape[0]
    mean, std = (
        torch.tensor(one).view(-1, 1, 1) for one in (prepared.loaded.preprocess.mean, prepared.loaded.preprocess.std)
    )
    pixels = sample.float().cpu()
    if len(mean) == channels and prepared.heldout.files:
        pixels = pixels * std + mean
    else:  # numbers of unknown meaning: from their least to their largest
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp_min(1e-12)
    return (255 * pixels.clamp(0, 1)).round().to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3).numpy()


def _encode(pixels: np.ndarray) -> str:
    """A small JPEG as text; maps of few cells stay blocks."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    few = max(image.size) < SIDE
    factor = SIDE / max(image.size)
    size = tuple(max(1, round(side * factor)) for side in image.size)
    image = image.resize(size, Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode()
