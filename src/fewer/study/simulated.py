"""Simulated raters: they write pathways and give scores from the record of what was done to an image.

Everything that comes from here is called simulated: it shows that a pipeline works, not how people see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewer.data.distortions.truth import Applied, Truth, family, overall_level
from fewer.study.pathway import Pathway
from fewer.study.vocabulary import ASPECTS, LEVELS

__all__ = ["SimulatedRater", "make_raters", "simulate"]

_DEGREES = ("slightly", "somewhat", "clearly", "very", "extremely")
_OPENERS = ("The {content}", "In this picture the {content}", "The whole {content}")
_LOCAL = ("The {place} of the {content}", "The part in the {place} of the {content}")
_PRAISE = {
    "sharpness": "the edges are sharp",
    "noise": "the surfaces are clean",
    "exposure": "the {content} is well exposed",
    "contrast": "there is good contrast",
    "colour": "the picture has natural colours",
    "compression": "it is free of artefacts",
    "texture": "the textures are detailed",
}
_CONCLUSIONS = (
    "Overall, the quality of this image is {level}.",
    "In conclusion, the quality is {level}.",
    "Therefore the overall quality of the picture is {level}.",
)


@dataclass(frozen=True)
class SimulatedRater:
    """One simulated person.

    Attributes
    ----------
    name
        Pseudonym.
    bias
        Added to every opinion, in levels.
    inconsistency
        Standard deviation of the opinion, in levels.
    omission
        Probability of not mentioning a defect of severity 1; that of severity 5 is a fifth of it.
    random
        Answers have nothing to do with the image.
    """

    name: str
    bias: float = 0.0
    inconsistency: float = 0.4
    omission: float = 0.2
    random: bool = False

    def score(self, truth: Truth, rng: np.random.Generator) -> int:
        """A level, 1 to 5."""
        if self.random:
            return int(rng.integers(1, 6))
        seen = overall_level(truth) + self.bias + self.inconsistency * rng.standard_normal()
        return int(np.clip(np.rint(seen), 1, 5))

    def write(self, truth: Truth, rng: np.random.Generator) -> Pathway:
        """A description and a conclusion.

        Examples
        --------
        >>> truth = Truth("a.png", "a", (Applied("jpeg", 5),), "cat")
        >>> SimulatedRater("r1").write(truth, np.random.default_rng(0)).level
        1
        """
        seen = [one for one in truth.applied if rng.random() > self.omission * (6 - one.severity) / 5]
        parts = [self._blame(one, truth.content, rng) for one in seen]
        harmed = {family(one.family).aspect for one in truth.applied}
        fine = [aspect for aspect in _PRAISE if aspect in ASPECTS and aspect not in harmed]
        chosen = rng.permutation(fine)[: int(rng.integers(2, 4))].tolist()
        praise = " and ".join(_PRAISE[aspect].format(content=truth.content) for aspect in chosen)
        parts.append(f"{praise[:1].upper()}{praise[1:]}.")
        level = self.score(truth, rng)
        conclusion = str(rng.choice(_CONCLUSIONS)).format(level=LEVELS[level - 1])
        return Pathway(truth.image, self.name, " ".join(parts), conclusion, "simulated")

    def _blame(self, one: Applied, content: str, rng: np.random.Generator) -> str:
        where = str(rng.choice(_LOCAL if one.place else _OPENERS)).format(place=one.place, content=content)
        return f"{where} is {_DEGREES[one.severity - 1]} {family(one.family).word}."


def make_raters(count: int, seed: int = 0, bias: float = 0.4) -> list[SimulatedRater]:
    """So many raters with different bias, inconsistency and omissions.

    Examples
    --------
    >>> [rater.name for rater in make_raters(2)]
    ['simulated-001', 'simulated-002']
    """
    rng = np.random.default_rng([seed, 77])
    return [
        SimulatedRater(
            f"simulated-{i + 1:03d}", bias * rng.standard_normal(), rng.uniform(0.2, 0.6), rng.uniform(0.05, 0.3)
        )
        for i in range(count)
    ]


def simulate(
    truths: Sequence[Truth], raters: Sequence[SimulatedRater], per_image: int = 3, seed: int = 0
) -> list[Pathway]:
    """Pathways of every image by so many of the raters.

    Examples
    --------
    >>> made = simulate([Truth("a.png", "a")], make_raters(3), per_image=2)
    >>> len(made), made[0].source
    (2, 'simulated')
    """
    rng = np.random.default_rng([seed, 78])
    found = []
    for truth in truths:
        for index in rng.permutation(len(raters))[:per_image]:
            found.append(raters[index].write(truth, rng))
    return found
