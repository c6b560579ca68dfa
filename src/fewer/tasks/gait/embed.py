"""From silhouettes to embeddings: one sequence, or all of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.models.running import evaluating
from fewer.tasks.gait.data.dataset import GaitData, as_input, as_silhouettes, read_sequence
from fewer.tasks.gait.data.silhouettes import INVERTED, is_inverted
from fewer.tasks.gait.protocols.records import Walk, Walks

__all__ = ["LONGEST", "embed", "embed_walks"]

LONGEST = 720
"""Frames of a sequence that are looked at, as in OpenGait."""


def embed(model: nn.Module | str | Path, sequence: np.ndarray | Sequence[Any] | str | Path) -> np.ndarray:
    """Embedding of one sequence; two embeddings of one person are near by
    :func:`~fewer.tasks.gait.protocols.distance.part_distances`.

    Parameters
    ----------
    model
        A gait network, a run folder, or a network of one's own: silhouettes (sequences, frames, 64, 44) from 0 to 1 in,
        embeddings (sequences, channels) or (sequences, channels, parts) out.
    sequence
        Masks or silhouettes (frames, height, width), of bytes, of 0 and 1, or of floats, or a list of frames, also
        of Pillow images or tensors; or a pkl, npz or video file, or a folder of mask images.

    Returns
    -------
    ndarray
        Shape (channels, parts), float32.

    Raises
    ------
    FewerError
        When the model or the sequence cannot be used.

    Examples
    --------
    >>> from fewer.tasks.gait.networks import build_network
    >>> masks = np.zeros((3, 64, 64), np.uint8)
    >>> masks[:, :, 24:40] = 255
    >>> embed(build_network({"size": "tiny"}).eval(), masks).shape
    (16, 16)
    """
    if isinstance(model, (str, Path)):
        from fewer.tasks.gait.loaded import open_run

        model = open_run(model).model
    if isinstance(sequence, (str, Path)):
        told, frames = str(sequence), read_sequence(sequence)
    else:
        values = [np.asarray(f) for f in sequence] if isinstance(sequence, (list, tuple)) else np.asarray(sequence)
        told, frames = "the sequence", as_silhouettes(values, "the sequence")
    if is_inverted(frames):
        raise FewerError(f"{told}: {INVERTED}")
    return _embedded(model, frames)


def _embedded(model: nn.Module, frames: np.ndarray) -> np.ndarray:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = torch.from_numpy(as_input(frames[:LONGEST]))[None].to(device)
    with evaluating(model), torch.no_grad():
        found = model(x)
    if not isinstance(found, torch.Tensor) or found.ndim not in (2, 3) or len(found) != 1:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise FewerError(f"the network gives {shape}, not embeddings (sequences, channels, parts) of one sequence")
    return found[0].float().cpu().numpy()


def embed_walks(
    model: nn.Module, data: GaitData, walks: Sequence[Walk], *, progress: Progress | None = None
) -> tuple[Walks, list[tuple[Walk, str]]]:
    """Embeddings of sequences of a data set, each at its own length; and those that cannot be used, and why.

    These are sequences that cannot be read, and those whose background is bright.

    Raises
    ------
    FewerError
        When none can be used.
    """
    found, names, skipped = [], [], []
    with (progress or Silent()).stage("embed", len(walks)) as stage:
        for walk in walks:
            try:
                frames = data.frames(walk)
                if is_inverted(frames):
                    raise FewerError(INVERTED)
                found.append(_embedded(model, frames))
                names.append(walk)
            except FewerError as error:
                skipped.append((walk, str(error)))
            stage.advance(1, str(walk))
    if not found:
        reason = f"; the first: {skipped[0][1]}" if skipped else ""
        raise FewerError(f"no sequence of {data.root} can be used{reason}")
    return Walks(names, np.stack(found)), skipped
