"""What a text says and what it does not: the rules by which every question, answer and wrong option is checked."""

from __future__ import annotations

import re

from fewer.data.distortions.truth import PLACES
from fewer.study.vocabulary import ASPECTS, LEVELS, level_of, statements

__all__ = ["ADJECTIVE", "aspect_of", "entails", "says"]

ADJECTIVE = {
    "sharpness": "blurry",
    "noise": "noisy",
    "exposure": "underexposed",
    "contrast": "flat",
    "colour": "faded",
    "compression": "pixelated",
    "integrity": "corrupted",
    "texture": "oversharpened",
    "composition": "cluttered",
}
"""What an image is called whose aspect is bad."""

_SIDES = (
    (
        frozenset({"dark", "too dark", "underexposed", "dim"}),
        frozenset({"overexposed", "too bright", "washed out", "blown out"}),
    ),
    (frozenset({"faded", "dull"}), frozenset({"oversaturated"})),
)
_SMALL_WORDS = "a an the is are of in on at to and or it this that image picture its with by as very for be has have"
_SMALL = frozenset(_SMALL_WORDS.split())


def says(text: str, claim: str) -> bool | None:
    """Whether a text says what a claim says of an aspect; None where the text says nothing of it.

    Words that stand for opposite faults of one aspect, such as dark and overexposed, contradict each other.

    Examples
    --------
    >>> text = "The cat is blurry and underexposed, but there is no noise."
    >>> says(text, "is it blurry"), says(text, "is it noisy"), says(text, "is it overexposed"), says(text, "is it flat")
    (True, False, False, None)
    """
    asked = statements(claim)
    if not asked:
        return None
    wanted = asked[0]
    told = [said for said in statements(text) if said.aspect == wanted.aspect]
    if not told:
        return None
    for one, other in _SIDES:
        for mine, against in ((one, other), (other, one)):
            if wanted.word in mine and wanted.polarity == "bad":
                words = {said.word for said in told if said.polarity == "bad"}
                if words and words <= against:
                    return False
    return any(said.polarity == wanted.polarity for said in told)


def aspect_of(question: str) -> str | None:
    """The aspect that a question names by its noun; None where it names none.

    Examples
    --------
    >>> aspect_of("How is the lighting of this room?"), aspect_of("How is the overall quality?")
    ('exposure', None)
    """
    lower = question.lower()
    for name, aspect in ASPECTS.items():
        if any(re.search(rf"\b{word}\b", lower) for word in (name, *aspect.nouns)):
            return name
    return None


def entails(question: str, answer: str, text: str) -> bool:
    """Whether an answer to a question follows from a text, by rules.

    Overall quality is compared as a level; the adjectives of an aspect by what the text says of it; places and all
    other answers by their words, each of which must be in the text.

    Examples
    --------
    >>> text = "The upper left of the cat is blurry. Overall, the quality is poor."
    >>> entails("How is the sharpness?", "low", text), entails("How is the overall quality?", "good", text)
    (True, False)
    >>> entails("What part is blurry?", "upper left", text), entails("What part is blurry?", "centre", text)
    (True, False)
    """
    answer, lower = answer.strip().lower().rstrip("."), text.lower()
    if "overall" in question.lower() or "quality" in question.lower():
        level = level_of(f"quality {answer}")
        if level is not None:
            return level == level_of(text)
    aspect = aspect_of(question)
    if aspect is not None and answer in ASPECTS[aspect].answer:
        signs = {said.polarity for said in statements(text) if said.aspect == aspect}
        place = ASPECTS[aspect].answer.index(answer)
        return signs == {("good", "", "bad")[place]}
    if answer in PLACES or answer in LEVELS:
        return bool(re.search(rf"\b{answer}\b", lower))
    found = statements(answer)
    if found:
        return says(text, answer) is True
    words = [word for word in re.findall(r"\w+", answer) if word not in _SMALL]
    known = set(re.findall(r"\w+", lower))
    return bool(words) and all(word in known or word.rstrip("s") in known or word + "s" in known for word in words)
