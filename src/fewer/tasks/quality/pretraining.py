"""Teach the quality encoder to see before a language model reads it: simulated distortions of clean photos.

The tokens of an encoder from nothing tell a language model nothing, so it learns how often each answer is right and
looks at no image. Which distortion was applied, where, and how strongly, is known without any person; so the encoder
learns that first, in about a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.core.errors import FewerError
from fewer.core.progress import SILENT, Progress
from fewer.data.decode import read_image
from fewer.data.distortions.families import FAMILIES
from fewer.data.distortions.truth import Applied, Truth, coverage, distort, draw_recipe, family, overall_level
from fewer.study.vocabulary import ASPECTS, LEVELS, statements
from fewer.tasks.quality.convert.facts import aspect_of
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.questions import Question
from fewer.tasks.quality.readings import READ
from fewer.training.loop import fit
from fewer.training.optimise import Optimiser
from fewer.training.settings import LoopSettings

__all__ = ["Examples", "Reader", "draw_examples", "learn", "pretrain"]

_ASPECTS = tuple(sorted({family(name).aspect for name in FAMILIES}))
_NAMES = tuple(FAMILIES)


@dataclass(frozen=True)
class Examples:
    """Statistics of distorted images and what was done to them.

    Attributes
    ----------
    whole, cells
        See :func:`fewer.tasks.quality.scene.scene_statistics`.
    families
        [N, families] severity in 0..1.
    aspects
        [N, cells, aspects] severity in 0..1 times the share of the cell that is distorted.
    levels
        [N] simulated opinion, 1 to 5.
    """

    whole: Tensor
    cells: Tensor
    families: Tensor
    aspects: Tensor
    levels: Tensor


class Reader(nn.Module):
    """An encoder and the linear layers that pre-training reads its tokens with; the layers are dropped afterwards."""

    def __init__(self, encoder: StatisticsEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.whole = nn.Linear(2 * encoder.width, len(_NAMES) + 2 * len(_ASPECTS) + 1)
        self.cell = nn.Linear(encoder.width, len(_ASPECTS))
        self.register_buffer("cut", torch.zeros(len(_ASPECTS)))  # logits above which an aspect counts as bad

    @torch.no_grad()
    def read(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """How bad each aspect is, in logits above the cut [N, aspects], and levels [N], of uint8 images of one size."""
        self.eval()
        pixels = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()).float() / 255
        parts = [self(*self.encoder.measure(some)) for some in pixels.split(32)]
        aspects = torch.cat([part[1] for part in parts]) - self.cut  # pyright: ignore[reportOperatorIssue]
        return aspects.numpy(), torch.cat([part[3] for part in parts]).numpy()

    def levels(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Scores 1 to 5."""
        return self.read(images)[1]

    def choose(self, questions: Sequence[Question], images: Mapping[str, np.ndarray]) -> list[int]:
        """Answer questions about aspects and the overall quality without a language model, as a baseline."""
        aspects, levels = self.read(list(images.values()))
        place = {name: i for i, name in enumerate(images)}
        return [_pick(q, aspects[place[q.image]], float(levels[place[q.image]])) for q in questions]

    def forward(self, whole: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits of families and aspects, severities of aspects, levels, and logits of aspects by cell."""
        tokens = self.encoder.tell(whole, cells)
        sizes = [len(_NAMES), len(_ASPECTS), len(_ASPECTS), 1]
        families, aspects, severity, level = self.whole(tokens[:, :2].flatten(1)).split(sizes, 1)
        return families, aspects, severity, 3 + 2 * level[:, 0], self.cell(tokens[:, 2:])

    def loss(self, data: Examples, of: Tensor) -> dict[str, Tensor]:
        """Losses by name."""
        noise = 0.1 * self.encoder.whole_scale * torch.randn(len(of), data.whole.shape[1])  # pyright: ignore
        families, aspects, severity, level, cells = self(data.whole[of] + noise, data.cells[of])
        known, strong = data.families[of], data.aspects[of]
        worst = strong.amax(1)
        return {
            "families": 3 * F.binary_cross_entropy_with_logits(families, (known > 0).float()),
            "aspects": 2 * F.binary_cross_entropy_with_logits(aspects, (worst > 0).float()),
            "severity": 3 * F.mse_loss(severity, worst),
            "level": 0.5 * F.mse_loss(level, data.levels[of]),
            "cells": F.binary_cross_entropy_with_logits(cells, (strong > 0.05).float()),
        }


def _pick(question: Question, aspects: np.ndarray, level: float) -> int:
    """The option that fits what was read."""
    options = question.options
    if question.kind == "yes-or-no":
        bad = aspects[_ASPECTS.index(statements(question.text)[0].aspect)] > 0
        return options.index("Yes" if bad else "No")
    if question.kind == "what":
        named = [statements(option) for option in options]
        return int(np.argmax([aspects[_ASPECTS.index(said[0].aspect)] if said else -np.inf for said in named]))
    aspect = aspect_of(question.text)
    if aspect is None:  # of the overall quality
        return int(np.argmin([abs(LEVELS.index(option) + 1 - level) for option in options]))
    return options.index(ASPECTS[aspect].answer[2 if aspects[_ASPECTS.index(aspect)] > 0 else 0])


def draw_examples(
    photos: Sequence[Path],
    count: int,
    *,
    grid: int = 4,
    side: int = 96,
    families: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Examples:
    """Cut squares out of photos at several sizes, vary their tones a little, distort them, and measure them.

    The tones vary before the distortion, so that few photos stand for more: some are warm, dull or dark by nature.

    Parameters
    ----------
    photos
        Clean photos.
    count
        Images.
    grid, side
        Cells per side, and pixels per side.
    families
        Distortions to draw from; all by default.

    Raises
    ------
    FewerError
        When there is no photo.
    """
    from fewer.tasks.quality.scene import scene_statistics

    if not photos:
        raise FewerError("no clean photo is there to distort; give a folder of photos")
    decoded = [read_image(path).convert("RGB") for path in photos]
    rng = np.random.default_rng([seed, 61])
    rows: list[list[Tensor]] = []
    with progress.stage("distort", count) as stage:
        for start in range(0, count, 32):
            drawn = [
                _draw(decoded[number % len(decoded)], rng, side, families, seed * 100_003 + number)
                for number in range(start, min(count, start + 32))
            ]
            pixels = torch.from_numpy(np.stack([image for image, _ in drawn]).transpose(0, 3, 1, 2).copy()).float()
            truth = [_targets(applied, grid, side) for _, applied in drawn]
            told = [torch.from_numpy(np.stack(column)) for column in zip(*truth, strict=True)]
            rows.append([*scene_statistics(pixels / 255, grid), *told])
            stage.advance(len(drawn))
    return Examples(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _draw(
    image: Image, rng: np.random.Generator, side: int, families: Sequence[str] | None, seed: int
) -> tuple[np.ndarray, tuple[Applied, ...]]:
    factor = max(side / min(image.size), min(1.0, float(rng.uniform(1.6, 3.4)) * side / min(image.size)))
    size = min(round(side / factor), *image.size)
    left, top = int(rng.integers(image.width - size + 1)), int(rng.integers(image.height - size + 1))
    square = np.asarray(image.crop((left, top, left + size, top + size)))
    if rng.random() < 0.5:
        square = square[:, ::-1]
    # tones vary at the larger size: at the final one, the gaps that they leave in the histogram would look like banding
    if size > 1.25 * side:
        square = _varied(square, rng)
    pixels = np.asarray(fromarray(np.ascontiguousarray(square)).resize((side, side)))
    applied = draw_recipe(rng, families, most=2, local=0.25, clean=0.15)
    return distort(pixels, applied, seed), applied


def _varied(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values = pixels.astype(np.float32) / 255
    grey = values.mean(2, keepdims=True)
    values = grey + rng.uniform(0.85, 1.15) * (values - grey)
    values = np.clip(values * rng.uniform(0.95, 1.05, 3).astype(np.float32), 0, 1) ** rng.uniform(0.85, 1.18)
    return np.rint(values * 255).astype(np.uint8)


def _targets(applied: Sequence[Applied], grid: int, side: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
    families = np.zeros(len(_NAMES), np.float32)
    aspects = np.zeros((grid * grid, len(_ASPECTS)), np.float32)
    for one in applied:
        families[_NAMES.index(one.family)] = one.severity / 5
        column = aspects[:, _ASPECTS.index(family(one.family).aspect)]
        column[:] = np.maximum(column, coverage(one.place, grid, side).ravel() * one.severity / 5)
    return families, aspects, np.float32(overall_level(Truth("", "", tuple(applied))))


def learn(encoder: StatisticsEncoder, data: Examples, *, epochs: int = 10, seed: int = 0) -> Reader:
    """Teach an encoder in place what was done to the images.

    Parameters
    ----------
    encoder
        Its grid is that of the examples.
    data
        See :func:`draw_examples`.
    epochs
        How often each image is seen.
    """
    encoder.settle(data.whole, data.cells)
    reader = Reader(encoder)
    count, batch = len(data.levels), 64
    steps = max(1, epochs * count // batch)
    order = torch.from_numpy(np.random.default_rng([seed, 62]).integers(0, count, (steps, batch)))
    settings = LoopSettings(steps=steps, rate_shape="cosine", rate_warm_up=0.2, seed=seed)
    how = Optimiser("adamw", 3e-3, 0.05, clip=1.0)
    fit(reader, lambda net, step: net.loss(data, order[step]), settings, optimiser=how)
    with torch.no_grad():
        found, bad = reader.eval()(data.whole, data.cells), data.aspects.amax(1) > 0
        logits = found[1]
        for column in range(len(_ASPECTS)):
            groups = [logits[bad[:, column] == side, column] for side in (False, True)]
            if all(len(group) for group in groups):
                reader.cut[column] = (groups[0].median() + groups[1].median()) / 2  # type: ignore[index]
    _keep(reader, logits, found[3])
    return reader


@torch.no_grad()
def _keep(reader: Reader, logits: Tensor, levels: Tensor) -> None:
    """Leave in the encoder what tells aspects and levels, in units of their deviation over the examples.

    An aspect reads 0 at its cut, the quality at its mean; what no distortion is about reads 0 always.
    """
    judge = reader.encoder.judge
    if judge is None:
        return
    judge.weight.zero_()
    judge.bias.zero_()
    first = len(_NAMES)
    for column, name in enumerate(_ASPECTS):
        unit, row = logits[:, column].std(correction=0).clamp_min(1e-3), READ.index(name)
        judge.weight[row] = reader.whole.weight[first + column] / unit
        judge.bias[row] = (reader.whole.bias[first + column] - reader.cut[column]) / unit  # type: ignore[index]
    unit, row = levels.std(correction=0).clamp_min(1e-3), READ.index("quality")
    judge.weight[row] = -2 * reader.whole.weight[-1] / unit
    judge.bias[row] = (levels.mean() - 3 - 2 * reader.whole.bias[-1]) / unit


def pretrain(
    encoder: StatisticsEncoder,
    photos: Sequence[Path],
    count: int,
    *,
    side: int = 96,
    families: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Reader:
    """Draw examples of photos and teach an encoder in place; the reader can score images by itself.

    Examples
    --------
    >>> pretrain(StatisticsEncoder(), [], 10)
    Traceback (most recent call last):
        ...
    fewer.core.errors.FewerError: no clean photo is there to distort; give a folder of photos
    """
    more = {"grid": encoder.grid, "side": side, "families": families, "seed": seed}
    return learn(encoder, draw_examples(photos, count, progress=progress, **more), seed=seed)
