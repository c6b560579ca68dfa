"""MS-MT: a segmentation-enhanced translator, a mean teacher on several scales, and self-training.

Z. Zhao, K. Xu, H. Z. Yeo, X. Yang, C. Guan, *MS-MT: Multi-Scale Mean Teacher with Contrastive Unpaired Translation for
Cross-Modality Vestibular Schwannoma and Cochlea Segmentation*, BrainLes 2022, arXiv 2303.15826. The abstract fixes the
three steps. The text and code were not at hand, so details were chosen: weights of scales, ramp and noise as in HCR-MT
(Li et al. 2021) of the same group; the translator after CUT (Park et al. 2020) with the segmentation heads and the edge
loss of the winners of crossMoDA 2023 (arXiv 2311.12437); the factors of structures are an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fewer.adaptation.baselines import sometimes
from fewer.adaptation.learn import Lesson, Stream
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import chain, change_structures, random_curve
from fewer.adaptation.teachers import in_rounds
from fewer.adaptation.translate.cut import train_cut
from fewer.adaptation.translate.safety import check_translation

__all__ = ["SCALES", "ms_mt", "translated_source"]

SCALES = (0.5, 0.4, 0.05, 0.05)
"""Weights of the scales from full resolution down, for labels and for consistency alike (HCR-MT)."""


def translated_source(
    problem: Problem, settings: AdaptationSettings, work: Work
) -> tuple[Sequence[Pair], Sequence[Pair], Adapted]:
    """Source images in the look of the target; as they are where the translator is not safe.

    Returns
    -------
    source, held
        Pairs to train on, and those that never train.
    adapted
        With the translator's stage and its checks.
    """
    translator, stage = train_cut(problem, settings, work)
    images = [translator.image(image) for image, _ in problem.source]
    checks = check_translation(problem, images)
    found = Adapted(problem.network, {"translator": stage}, images, checks=checks.to_dict())
    if not checks.safe:
        instead = "; random curves take its place" if settings.uses("curves") else ""
        work.say(f"the translator is not used: {checks.sentence}{instead}")
        found.translated = ()
        return problem.source, problem.held, found
    work.say(f"the translator is used: {checks.sentence}")
    source = [(image, mask) for image, (_, mask) in zip(images, problem.source, strict=True)]
    return source, [(translator.image(image), mask) for image, mask in problem.held], found


def ms_mt(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Translate the source, train with deep supervision and a mean teacher on several scales, then self-train."""
    source, held = problem.source, problem.held
    found = Adapted(problem.network)
    if settings.uses("translation"):
        source, held, found = translated_source(problem, settings, work)
    every = _cut_to(SCALES, len(problem.weights))
    weights = every if settings.uses("scales") else (1.0,)
    agree = every if settings.uses("scale-consistency") else (1.0,)
    styles = []
    if settings.uses("structures"):
        styles.append(partial(change_structures, factors=settings.structure_factors))
    if settings.uses("curves") and not len(found.translated):  # none is wanted, or it was not safe
        styles.append(sometimes(random_curve, settings.curve_share))
    on = settings.uses("consistency")
    lesson = Lesson(
        [Stream(source, chain(styles))],
        held,
        target=problem.target if on else (),
        consistency=(0.1 if settings.consistency is None else settings.consistency) if on else 0.0,
        also_labelled=True,
        weights=weights,
        agree=agree,
    )
    found.stages |= in_rounds(
        problem, settings, work, lesson, chain(styles[:1]) if settings.uses("structures") else None
    )
    return found


def _cut_to(weights: Sequence[float], count: int) -> tuple[float, ...]:
    kept = weights[: max(1, count)]
    return tuple(weight / sum(kept) for weight in kept)
