"""A pathway: what a rater says of the low-level appearance of an image, then the conclusion; and checks of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fewer.study.vocabulary import level_of, polarity, statements

__all__ = ["Flag", "Pathway", "check_texts", "contradictions", "text_flags"]

SHORTEST, LONGEST = 15, 110
"""Words of a usable feedback; those of Q-Instruct mostly have 20 to 100."""


@dataclass(frozen=True)
class Pathway:
    """One feedback.

    Attributes
    ----------
    image
        File, relative to the study's folder of images.
    rater
        Pseudonym.
    description
        Elementary attributes, with content or position as context.
    conclusion
        The sentence on overall quality.
    source
        ``study`` or ``simulated``.
    """

    image: str
    rater: str
    description: str
    conclusion: str
    source: str = "study"

    @property
    def text(self) -> str:
        """Description, then conclusion."""
        return f"{self.description.strip()} {self.conclusion.strip()}".strip()

    @property
    def level(self) -> int | None:
        """Overall level 1 to 5 that the conclusion says; None where it says none."""
        return level_of(self.conclusion) or level_of(self.text)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Flag:
    """Something to look at in a feedback: ``what`` is short and the same for all of its kind."""

    image: str
    rater: str
    what: str
    detail: str = ""


def text_flags(pathway: Pathway) -> list[Flag]:
    """What the text alone shows: length, missing conclusion, missing attributes or context, contradicting itself.

    Examples
    --------
    >>> [flag.what for flag in text_flags(Pathway("a", "r", "Blurry.", "Nice."))]
    ['too short', 'no conclusion', 'no context']
    """
    found = []

    def add(what: str, detail: str = "") -> None:
        found.append(Flag(pathway.image, pathway.rater, what, detail))

    words = len(pathway.text.split())
    if words < SHORTEST:
        add("too short", f"{words} words")
    if words > LONGEST:
        add("too long", f"{words} words")
    if pathway.level is None:
        add("no conclusion")
    if not statements(pathway.description):
        add("no attribute")
    if not _CONTEXT.search(pathway.description.lower()):
        add("no context")
    mood = polarity(pathway.description)
    if pathway.level is not None and ((mood < -0.7 and pathway.level >= 4) or (mood > 0.7 and pathway.level <= 2)):
        add("contradiction", f"the description is {'bad' if mood < 0 else 'good'}, the level {pathway.level} of 5")
    return found


_CONTEXT = re.compile(
    r"\b(?:the|its|this|of|in|on|at|upper|lower|left|right|centre|center|background|foreground)\s+\w+"
)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3))}


def contradictions(pathways: Sequence[Pathway], loud: int = 2) -> list[Flag]:
    """Aspects of one image that a rater praises while ``loud`` or more others blame them, or the other way round."""
    found = []
    by_image: dict[str, list[Pathway]] = {}
    for pathway in pathways:
        by_image.setdefault(pathway.image, []).append(pathway)
    for image, group in by_image.items():
        said = {p.rater: _signs(p) for p in group}
        for rater, own in said.items():
            for aspect, sign in own.items():
                others = [signs[aspect] for name, signs in said.items() if name != rater and aspect in signs]
                if len(others) >= loud and all(other == -sign for other in others):
                    found.append(Flag(image, rater, "alone against others", f"{aspect}, {len(others)} others"))
    return found


def _signs(pathway: Pathway) -> dict[str, int]:
    """+1 or -1 by aspect, where the text is not of two minds."""
    totals: dict[str, set[int]] = {}
    for one in statements(pathway.description):
        totals.setdefault(one.aspect, set()).add(1 if one.polarity == "good" else -1)
    return {aspect: next(iter(signs)) for aspect, signs in totals.items() if len(signs) == 1}


def check_texts(pathways: Sequence[Pathway], alike: float = 0.8) -> list[Flag]:
    """All flags: of each text, of texts of one rater that are nearly the same, and of raters against each other.

    Parameters
    ----------
    pathways
        Of a study.
    alike
        Share of common runs of four words (Jaccard) from which two texts of one rater count as copied.
    """
    found = [flag for pathway in pathways for flag in text_flags(pathway)]
    by_rater: dict[str, list[Pathway]] = {}
    for pathway in pathways:
        by_rater.setdefault(pathway.rater, []).append(pathway)
    for own in by_rater.values():
        found += _copies(own, alike)
    return found + contradictions(pathways)


def _copies(pathways: Sequence[Pathway], alike: float) -> list[Flag]:
    """Texts of one rater that are nearly those about an earlier image.

    Sets of which a share is common have one of their rarest members in common (prefix filtering), so that only texts
    with such a run of words in common are compared: a rater of a study as large as the paper's has written 1,500.
    """
    shingles = [_shingles(pathway.text) for pathway in pathways]
    often = Counter(run for runs in shingles for run in runs)
    holders: dict[tuple[str, ...], list[int]] = {}
    found = []
    for place, (pathway, runs) in enumerate(zip(pathways, shingles, strict=True)):
        rarest = sorted(runs, key=lambda run: (often[run], run))[: len(runs) - math.ceil(alike * len(runs) - 1e-9) + 1]
        for index in sorted({index for run in rarest for index in holders.get(run, ())}):
            other = pathways[index]
            share = len(runs & shingles[index]) / len(runs | shingles[index])
            if share >= alike and other.image != pathway.image:
                found.append(Flag(pathway.image, pathway.rater, "copied", f"like that of {other.image}"))
                break
        for run in rarest:
            holders.setdefault(run, []).append(place)
    return found
