"""The mechanism, measured: what a model answers about photos and distortions that it never saw, before and after.

The demo and the benchmark share this. Photos are split once; the encoder, the conversations and the questions of one
side never meet a photo of the other. Two families of distortions are kept away from every training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewer.core.progress import SILENT, Progress
from fewer.data.decode import read_image
from fewer.data.distortions.families import FAMILIES
from fewer.data.photos import real_photos
from fewer.study.pathway import Pathway
from fewer.study.simulated import make_raters, simulate
from fewer.tasks.quality.asking import choose, describe, level_scores
from fewer.tasks.quality.baselines import RegressionHead, pixel_statistics
from fewer.tasks.quality.correlation import correlations
from fewer.tasks.quality.description import PROMPT as DESCRIBE
from fewer.tasks.quality.description import Described, judge_descriptions
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.perception import Perception, score_answers
from fewer.tasks.quality.pretraining import Reader, pretrain
from fewer.tasks.quality.simulator import Simulated, simulate_images, true_questions
from fewer.tasks.quality.tuning import Tuned

__all__ = [
    "KNOWN",
    "UNSEEN",
    "Material",
    "measure",
    "measure_baselines",
    "measure_descriptions",
    "photos_held",
    "prepare",
]

UNSEEN = ("lens-blur", "white-noise-ycc")
"""Families of distortions that no training sees."""
KNOWN = tuple(name for name in FAMILIES if name not in UNSEEN)
"""The others."""


@dataclass(frozen=True)
class Material:
    """Everything that a measurement needs.

    Attributes
    ----------
    data
        Images to train on.
    judge, unseen
        Images of other photos, with families that training knows and with :data:`UNSEEN`.
    texts
        Simulated pathways about ``data``.
    reader
        The taught encoder with its linear layers.
    seed
        Of all of it.
    """

    data: Simulated
    judge: Simulated
    unseen: Simulated
    texts: tuple[Pathway, ...]
    reader: Reader
    seed: int


def photos_held(seed: int) -> list[Path]:
    """The quarter of the real photos that judges."""
    photos = [photo.path for photo in real_photos()]
    order = np.random.default_rng([seed, 8]).permutation(len(photos))
    return [photos[i] for i in order[: max(1, len(photos) // 4)]]


def prepare(
    folder: str | Path,
    *,
    images: int,
    judged: int,
    distorted: int,
    raters: int = 2,
    side: int = 96,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Material:
    """Split the photos, distort them, let simulated raters write, and teach an encoder.

    Parameters
    ----------
    folder
        For the images.
    images, judged
        Images to train on, and images of each of the two sets to judge on.
    distorted
        Squares that the encoder learns from.
    raters
        Texts per image.
    side
        Pixels of an image.
    """
    folder = Path(folder)
    photos, held = [photo.path for photo in real_photos()], photos_held(seed)
    order = np.random.default_rng([seed, 8]).permutation(len(photos))
    trained = [photos[i] for i in order[len(held) :]]
    data = simulate_images(trained, folder / "images", images, side=side, families=KNOWN, seed=seed)
    judge = simulate_images(held, folder / "judged", judged, side=side, families=KNOWN, seed=seed + 1)
    unseen = simulate_images(held, folder / "unseen", judged, side=side, families=UNSEEN, seed=seed + 2, most=1)
    texts = simulate(data.truths, make_raters(8, seed), raters, seed)
    torch.manual_seed(seed)
    encoder = StatisticsEncoder()
    reader = pretrain(encoder, trained, distorted, side=side, families=KNOWN, seed=seed, progress=progress)
    return Material(data, judge, unseen, tuple(texts), reader, seed)


def measure(tuned: Tuned, material: Material) -> tuple[dict[str, float], Perception, list[int]]:
    """Accuracy on unseen photos by kind and quadrant, and SRCC against the simulated opinion.

    Returns
    -------
    tuple
        Numbers by name, the accuracies, and the choices.
    """
    questions = true_questions(material.judge.truths, material.seed)
    choices = choose(tuned, tuned.pictures(material.judge.folder), questions)
    scored = score_answers(questions, choices)
    numbers = {f"accuracy, {name}": float(row["accuracy"] or 0) for name, row in scored.rows.items()}
    for name, group in (("seen", material.judge), ("unseen", material.unseen)):
        scores = level_scores(tuned, tuned.pictures(group.folder), list(group.opinions))
        numbers[f"SRCC, {name} distortions"] = _srcc(scores, group)
    return numbers, scored, choices


def measure_descriptions(tuned: Tuned, material: Material, count: int) -> tuple[dict[str, str], Described]:
    """What a model writes about the first images of unseen photos, and its marks by rules.

    Its texts are compared with those of a simulated rater who wrote nothing else.

    Returns
    -------
    tuple
        Texts by image, and their marks.
    """
    truths = material.judge.truths[:count]
    images = [truth.image for truth in truths]
    texts = describe(tuned, tuned.pictures(material.judge.folder), images, DESCRIBE)
    golden = {text.image: text.text for text in simulate(truths, make_raters(1, 99), 1)}
    return texts, judge_descriptions(texts, golden)


def measure_baselines(material: Material) -> dict[str, dict[str, float]]:
    """What needs no language: the linear layers of the encoder, and a regression on ten statistics of pixels."""
    questions = true_questions(material.judge.truths, material.seed)
    answers = material.reader.choose(questions, _pixels(material.judge))
    scored = score_answers(questions, answers)
    head = {f"accuracy, {name}": float(row["accuracy"] or 0) for name, row in scored.rows.items()}
    plain = RegressionHead().fit(_statistics(material.data), list(material.data.opinions.values()))
    ridge = {}
    for name, group in (("seen", material.judge), ("unseen", material.unseen)):
        levels = material.reader.levels(list(_pixels(group).values()))
        head[f"SRCC, {name} distortions"] = _srcc(levels, group)
        ridge[f"SRCC, {name} distortions"] = _srcc(plain.predict(_statistics(group)), group)
    return {"linear layers on the encoder": head, "regression on pixel statistics": ridge}


def _srcc(scores: np.ndarray, group: Simulated) -> float:
    opinions = np.array(list(group.opinions.values()))
    if np.ptp(scores) == 0 or np.ptp(opinions) == 0:
        return 0.0
    return correlations(scores, opinions)["srcc"]


def _pixels(group: Simulated) -> dict[str, np.ndarray]:
    return {t.image: np.asarray(read_image(group.folder / t.image).convert("RGB")) for t in group.truths}


def _statistics(group: Simulated) -> np.ndarray:
    images: Sequence[np.ndarray] = list(_pixels(group).values())
    return np.stack([pixel_statistics(pixels) for pixels in images])
