"""What every adaptation is compared with: no adaptation, the oracle, and changes of the source's intensities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fewer.adaptation.learn import Lesson, Stream, learn
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import Style, match_histogram, random_curve, swap_amplitude, synthesise
from fewer.core.errors import FewerError

__all__ = ["curves", "fourier", "histogram", "sometimes", "source_only", "synthesis", "target_oracle"]


def sometimes(style: Style, share: float) -> Style:
    """Apply a style to a share of the images.

    Examples
    --------
    >>> import torch
    >>> sometimes(random_curve, 0.0)(torch.ones(1, 2), None, np.random.default_rng(0)).tolist()
    [[1.0, 1.0]]
    """

    def run(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
        return style(image, mask, rng) if rng.random() < share else image

    return run


def _supervised(
    problem: Problem,
    settings: AdaptationSettings,
    work: Work,
    style: Style | None = None,
    pairs: Sequence[Pair] | None = None,
    held: Sequence[Pair] | None = None,
) -> Adapted:
    lesson = Lesson([Stream(pairs or problem.source, style)], held or problem.held)
    done = learn(problem, settings, work, lesson, "train", problem.network)
    return Adapted(problem.network, {"train": done})


def source_only(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on the source as it is."""
    return _supervised(problem, settings, work)


def target_oracle(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on labelled target images: what an adaptation could reach at best.

    Raises
    ------
    FewerError
        When the target has no masks.
    """
    if not problem.answers:
        raise FewerError("the method target-oracle needs masks of the target; give a labelled target folder")
    return _supervised(problem, settings, work, pairs=problem.answers)


def histogram(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on source images with the histogram of a random target image each."""
    target = problem.target

    def style(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
        return match_histogram(image, target[int(rng.integers(len(target)))])

    held = [(match_histogram(x, target[i % len(target)]), y) for i, (x, y) in enumerate(problem.held)]
    return _supervised(problem, settings, work, style, held=held)


def fourier(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on source images with the low frequencies' amplitudes of a random target image each."""
    target = problem.target

    def style(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
        return swap_amplitude(image, target[int(rng.integers(len(target)))])

    held = [(swap_amplitude(x, target[i % len(target)]), y) for i, (x, y) in enumerate(problem.held)]
    return _supervised(problem, settings, work, style, held=held)


def curves(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on source images with random intensity curves."""
    style = sometimes(random_curve, settings.curve_share) if settings.uses("curves") else None
    return _supervised(problem, settings, work, style)


def synthesis(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on images that are painted from the source's label maps."""
    return _supervised(problem, settings, work, synthesise)
