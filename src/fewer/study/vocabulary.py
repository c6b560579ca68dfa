"""The words of low-level vision: which aspect of an image a word is about, and whether it praises or blames.

Raters are shown these words before they write; checks of their texts, the offline writer of questions and the local
judge of descriptions read texts with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["ASPECTS", "LEVELS", "Aspect", "Statement", "level_of", "polarity", "sentences", "statements"]


@dataclass(frozen=True)
class Aspect:
    """One property of how an image looks.

    Attributes
    ----------
    name
        Its noun.
    good, bad
        Words and phrases that praise or blame it.
    nouns
        What else it is called.
    answer
        Adjective pairs for questions that begin with how: (good, medium, bad).
    """

    name: str
    good: tuple[str, ...]
    bad: tuple[str, ...]
    nouns: tuple[str, ...] = ()
    answer: tuple[str, str, str] = ("good", "acceptable", "poor")


ASPECTS: dict[str, Aspect] = {
    aspect.name: aspect
    for aspect in (
        Aspect(
            "sharpness",
            ("sharp", "in focus", "crisp", "well focused", "clear"),
            ("blurry", "blurred", "blur", "out of focus", "unclear", "fuzzy", "smeared", "motion blur", "defocus"),
            ("focus", "clarity"),
            ("high", "medium", "low"),
        ),
        Aspect(
            "noise",
            ("clean", "noise-free", "noiseless", "smooth"),
            ("noisy", "noise", "grain", "grainy", "speckles", "impulse noise"),
            (),
            ("low", "medium", "high"),
        ),
        Aspect(
            "exposure",
            ("well exposed", "well lit", "bright enough", "balanced light"),
            ("dark", "too dark", "underexposed", "overexposed", "too bright", "washed out", "blown out", "dim"),
            ("brightness", "lighting", "light"),
            ("balanced", "slightly off", "poor"),
        ),
        Aspect(
            "contrast",
            ("good contrast", "strong contrast"),
            ("low contrast", "flat", "hazy", "too much contrast"),
            (),
            ("good", "medium", "poor"),
        ),
        Aspect(
            "colour",
            ("vivid", "natural colours", "rich colours", "colourful"),
            ("faded", "dull", "oversaturated", "colour cast", "colour bleeding", "unnatural colours", "discoloured"),
            ("colours", "color", "colors", "saturation"),
            ("natural", "acceptable", "unnatural"),
        ),
        Aspect(
            "compression",
            ("free of artefacts", "artefact-free"),
            (
                "compression artefacts",
                "blocking",
                "blocky",
                "banding",
                "ringing",
                "pixelated",
                "posterised",
                "artefacts",
            ),
            ("artifacts",),
            ("weak", "medium", "strong"),
        ),
        Aspect(
            "integrity",
            ("intact", "complete"),
            ("displaced patches", "colour blocks", "jittered", "torn", "corrupted"),
            (),
            ("intact", "slightly damaged", "damaged"),
        ),
        Aspect(
            "texture",
            ("rich texture", "fine detail", "detailed", "rich details"),
            ("lost texture", "loss of detail", "little detail", "oversharpened", "halos", "waxy"),
            ("detail", "details"),
            ("rich", "medium", "poor"),
        ),
        Aspect(
            "composition",
            ("well composed", "well framed"),
            ("badly framed", "cut off", "cluttered"),
            ("framing",),
        ),
    )
}
"""By name."""

LEVELS = ("bad", "poor", "fair", "good", "excellent")
"""The five words for overall quality, the worst first; the score of a word is its place from 1 (ITU-T P.910)."""

_SYNONYMS = {"average": "fair", "acceptable": "fair", "medium": "fair", "mediocre": "fair", "moderate": "fair"}
_SYNONYMS |= {
    "terrible": "bad",
    "awful": "bad",
    "low": "poor",
    "high": "good",
    "great": "excellent",
    "very good": "excellent",
}
_SYNONYMS |= {"very poor": "bad", "very bad": "bad", "very low": "bad", "very high": "excellent"}
_NEGATION = re.compile(r"\b(?:no|not|without|lacks?|free of|hardly any|isn't|is not|never|nor|neither)\b")
_SPELLING = (("colour", "colou?r"), ("artefact", "art[ei]fact"))


@dataclass(frozen=True, order=True)
class Statement:
    """What a text says of an aspect: ``good`` or ``bad``, with the word that said it."""

    aspect: str
    polarity: str
    word: str = ""


def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    parts = []
    for word in sorted(words, key=len, reverse=True):
        part = re.escape(word).replace(r"\ ", r"\s+")
        for plain, spelt in _SPELLING:
            part = part.replace(plain, spelt)
        parts.append(part)
    return re.compile(r"\b(?:" + "|".join(parts) + r")\b")


_PATTERNS = [
    (name, sign, _pattern(words))
    for name, aspect in ASPECTS.items()
    for sign, words in (("bad", aspect.bad), ("good", aspect.good))
]
_LEVEL = _pattern((*LEVELS, *_SYNONYMS))
_OVERALL = re.compile(r"\b(?:overall|quality|in conclusion|in total|altogether)\b")


def sentences(text: str) -> list[str]:
    """The sentences of a text.

    Examples
    --------
    >>> sentences("The cat is sharp. Overall, good!")
    ['The cat is sharp.', 'Overall, good!']
    """
    return [part.strip() for part in re.split(r"(?<=[.!?;])\s+|\n+", text) if part.strip()]


def statements(text: str) -> list[Statement]:
    """What a text says of aspects, in the order of the words; a negation before a word turns it around.

    A word is read once: of phrases that overlap the longest one counts.

    Examples
    --------
    >>> [(s.aspect, s.polarity) for s in statements("The candle is blurry, but there is no noise.")]
    [('sharpness', 'bad'), ('noise', 'good')]
    """
    return list(_statements(text))


@lru_cache(maxsize=20_000)  # converters and checks read the same texts again and again
def _statements(text: str) -> tuple[Statement, ...]:
    found: list[Statement] = []
    for clause in re.split(r"[.!?;,\n]|\b(?:but|while|although|however)\b", text.lower()):
        hits = []
        for name, sign, pattern in _PATTERNS:
            hits += [(match.start(), match.end(), name, sign) for match in pattern.finditer(clause)]
        hits.sort(key=lambda hit: (hit[0] - hit[1], hit[0]))
        taken: list[tuple[int, int, str, str]] = []
        for hit in hits:
            if all(hit[1] <= other[0] or hit[0] >= other[1] for other in taken):
                taken.append(hit)
        rest = clause
        for start, end, *_ in taken:  # "free of artefacts" praises; it does not turn around what follows
            rest = rest[:start] + "#" * (end - start) + rest[end:]
        for start, end, name, sign in sorted(taken):
            if _NEGATION.search(rest[:start]):
                sign = "good" if sign == "bad" else "bad"
            found.append(Statement(name, sign, clause[start:end]))
    return tuple(found)


def level_of(text: str) -> int | None:
    """The overall level that a text concludes with, 1 (bad) to 5 (excellent); None without one.

    Examples
    --------
    >>> level_of("The lamp is dark. Overall the quality is poor."), level_of("A cat.")
    (2, None)
    """
    for sentence in reversed(sentences(text.lower())):
        if not _OVERALL.search(sentence):
            continue
        words = _LEVEL.findall(sentence)
        if words:
            word = " ".join(words[-1].split())
            return LEVELS.index(_SYNONYMS.get(word, word)) + 1
    return None


def polarity(text: str) -> float:
    """Mean of what a text says, from -1 (only blame) to 1 (only praise); 0 where it says nothing.

    Examples
    --------
    >>> polarity("It is sharp and noisy.")
    0.0
    """
    signs = [1.0 if said.polarity == "good" else -1.0 for said in statements(text)]
    return sum(signs) / len(signs) if signs else 0.0
