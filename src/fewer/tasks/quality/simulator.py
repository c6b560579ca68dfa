"""A simulated study from real photos: distorted images, their truth, and questions that the truth answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.files import atomic_write_text
from fewer.data.decode import read_image
from fewer.data.distortions.families import FAMILIES
from fewer.data.distortions.truth import Truth, distort, draw_recipe, family, overall_level
from fewer.study.vocabulary import ASPECTS, LEVELS, statements
from fewer.tasks.quality.convert.facts import ADJECTIVE, says
from fewer.tasks.quality.questions import Question

__all__ = ["Simulated", "simulate_images", "true_questions"]


@dataclass(frozen=True)
class Simulated:
    """Images that were made.

    Attributes
    ----------
    folder
        Where they are, with ``truth.json``.
    truths
        What was done to each.
    """

    folder: Path
    truths: tuple[Truth, ...]

    @property
    def opinions(self) -> dict[str, float]:
        """Simulated opinion by image."""
        return {truth.image: overall_level(truth) for truth in self.truths}


def simulate_images(
    photos: Sequence[Path],
    folder: str | Path,
    count: int,
    *,
    side: int = 96,
    families: Sequence[str] | None = None,
    seed: int = 0,
    most: int = 2,
    local: float = 0.25,
) -> Simulated:
    """Cut squares out of photos at native resolution, distort them, and keep the truth.

    Parameters
    ----------
    photos
        Real photos; each gives as many images as the others.
    folder
        For ``0000.png`` and so on, and ``truth.json``.
    count
        Images.
    side
        Pixels of a square; a smaller photo is made larger first.
    families
        Distortions to draw from; all by default.
    most, local
        See :func:`~fewer.data.distortions.truth.draw_recipe`.
    """
    from PIL import Image

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    decoded = [read_image(path).convert("RGB") for path in photos]
    rng = np.random.default_rng([seed, 5])
    truths = []
    for number in range(count):
        place = number % len(decoded)
        image = decoded[place]
        # half of the way to a small square: large photos are soft at their own pixels
        factor = max(side / min(image.size), min(1.0, 2.5 * side / min(image.size)))
        small = image.resize((max(side, round(image.width * factor)), max(side, round(image.height * factor))))
        left, top = int(rng.integers(small.width - side + 1)), int(rng.integers(small.height - side + 1))
        pixels = np.asarray(small.crop((left, top, left + side, top + side)))
        applied = draw_recipe(rng, families, most=most, local=local, clean=0.15)
        name = f"{number:04d}.png"
        Image.fromarray(distort(pixels, applied, seed=seed * 100_003 + number)).save(folder / name)
        truths.append(Truth(name, photos[place].name, applied))
    atomic_write_text(folder / "truth.json", json.dumps([truth.to_dict() for truth in truths], indent=1) + "\n")
    return Simulated(folder, tuple(truths))


def true_questions(truths: Sequence[Truth], seed: int = 0) -> list[Question]:
    """Questions in the four quadrants of Q-Bench as far as a truth record answers them: yes-or-no, what and how.

    Half of the yes-or-no questions, and half of those that ask how an aspect is, are about a defect that is there; the
    other half about an aspect that is whole. So whoever knows only how often an answer is right is right half the time.
    """
    rng = np.random.default_rng([seed, 6])
    found = []
    for truth in truths:
        harmed = {family(one.family).aspect: one for one in truth.applied}
        whole = [a for a in ADJECTIVE if a not in harmed and a != "composition"]
        aspects = {family(name).aspect for name in FAMILIES}
        ask = bool(rng.random() < 0.5) and bool(harmed)
        aspect = str(rng.choice(list(harmed) if ask else [a for a in whole if a in aspects]))
        word = ADJECTIVE[aspect]
        # an overexposed image is not underexposed, although its exposure is bad
        ask = ask and says(f"It is {family(harmed[aspect].family).word}.", word) is True
        local = "in-context distortion" if any(one.place for one in truth.applied) else "distortion"
        add = found.append
        add(Question(truth.image, f"Is this image {word}?", ("Yes", "No"), 0 if ask else 1, "yes-or-no", local))
        if harmed:
            one = next(iter(harmed.values()))
            others = [a for a in whole if a in aspects]
            wrong = [ADJECTIVE[str(a)] for a in rng.permutation(others)[:3]]
            options, right = _shuffled(statements(family(one.family).word)[0].word, wrong, rng)
            text = "What low-level defect does this image have?"
            add(Question(truth.image, text, options, right, "what", local))
        wrongs = bool(rng.random() < 0.5) and bool(harmed)
        aspect = str(rng.choice(list(harmed) if wrongs else [a for a in whole if a in aspects]))
        scale = ASPECTS[aspect].answer
        options, right = _shuffled(scale[2 if wrongs else 0], [scale[0 if wrongs else 2]], rng)
        add(Question(truth.image, f"How is the {aspect} of this image?", options, right, "how", local))
        level = int(np.clip(np.rint(overall_level(truth)), 1, 5)) - 1
        wrong = [LEVELS[i] for i in range(5) if abs(i - level) > 1][:3]
        options, right = _shuffled(LEVELS[level], wrong, rng)
        add(Question(truth.image, "How is the overall quality of this image?", options, right, "how", "other"))
    return found


def _shuffled(right: str, wrong: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], int]:
    options = [right, *wrong]
    order = rng.permutation(len(options))
    return tuple(options[i] for i in order), int(np.flatnonzero(order == 0)[0])
