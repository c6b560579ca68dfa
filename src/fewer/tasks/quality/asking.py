"""Ask a tuned model: choices by likelihood or letters, descriptions, and scores from the logits of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fewer.study.vocabulary import LEVELS
from fewer.tasks.quality import assessment
from fewer.tasks.quality.convert.compare import BETTER_QUESTION, ORDINALS
from fewer.tasks.quality.levels import word_tokens
from fewer.tasks.quality.model import QualityModel
from fewer.tasks.quality.perception import most_likely
from fewer.tasks.quality.questions import Question, prompt
from fewer.tasks.quality.records import PLACEHOLDER, Record, asked_about
from fewer.tasks.quality.seeing import SeeingModel
from fewer.tasks.quality.talks import Pictures, Talks
from fewer.tasks.quality.tuning import Tuned
from fewer.tasks.quality.words import Words

__all__ = ["asked_tokens", "better", "choose", "describe", "letters", "level_scores", "word_logits"]


_ALL = 10**6
"""Words of a question that are read: all of them."""


def _views(model: QualityModel, pictures: Pictures, images: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(pictures.several(images)[None]).to(model.place.device)


def _plain(asked: str) -> str:
    """A question as models read it: without placeholders, as in the training."""
    return asked.replace(PLACEHOLDER, "").strip()


def _likelihoods(
    tuned: Tuned, pictures: Pictures, images: Sequence[str], text: str, options: Sequence[str]
) -> tuple[list, list]:
    asked = asked_about(len(images), text)
    if isinstance(tuned.model, SeeingModel):
        return tuned.model.likelihoods([pictures.pixels(image) for image in images], _plain(asked), options)
    records = [Record("", ((asked, option),), images[0], others=tuple(images[1:])) for option in options]
    batch = Talks(records, pictures, tuned.words, _ALL, 0).batch(records)
    device = tuned.model.place.device
    parts = [part.to(device) if part is not None else None for part in batch]
    sums, lengths = tuned.model.likelihood(*parts)  # type: ignore[arg-type]
    return sums.tolist(), lengths.tolist()


def choose(tuned: Tuned, pictures: Pictures, questions: Sequence[Question]) -> list[int]:
    """The option whose words are the most likely ones, for each question.

    The end mark counts as a word, so that a short option is no better for being the beginning of a long one.
    """
    return [
        most_likely(_likelihoods(tuned, pictures, q.images, prompt(q, letters=False), q.options)[0]) for q in questions
    ]


def letters(tuned: Tuned, pictures: Pictures, questions: Sequence[Question]) -> list[str]:
    """What the model writes when it is asked for a letter."""
    return [_write(tuned, pictures, q.images, prompt(q), 4) for q in questions]


def describe(tuned: Tuned, pictures: Pictures, images: Sequence[str], question: str) -> dict[str, str]:
    """What the model writes about each image."""
    return {image: _write(tuned, pictures, [image], question, 100) for image in images}


def better(tuned: Tuned, pictures: Pictures, pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, float]:
    """Which image of each pair looks better, asked with both images at once (Co-Instruct).

    Each pair is asked twice, with the images in both orders, and the likelihoods are added up, so that a model that
    prefers the first image whatever it shows gains nothing.

    Returns
    -------
    tuple
        [N] log-likelihood by which the first image of the pair wins, and the share of pairs with the same winner in
        both orders.
    """
    found = np.array([[_margin(tuned, pictures, a, b), -_margin(tuned, pictures, b, a)] for a, b in pairs])
    return found.sum(1), float((np.sign(found[:, 0]) == np.sign(found[:, 1])).mean())


def _margin(tuned: Tuned, pictures: Pictures, first: str, second: str) -> float:
    sums, _ = _likelihoods(tuned, pictures, [first, second], BETTER_QUESTION, ORDINALS)
    return sums[0] - sums[1]


def _write(tuned: Tuned, pictures: Pictures, images: Sequence[str], question: str, most: int) -> str:
    asked = _plain(asked_about(len(images), question))
    if isinstance(tuned.model, SeeingModel):
        return tuned.model.write([pictures.pixels(image) for image in images], asked, most)
    ids = tuned.words.encode(asked + "\n")
    return tuned.words.decode(tuned.model.answer(_views(tuned.model, pictures, images), ids, tuned.words.end, most))


def word_logits(
    tuned: Tuned,
    pictures: Pictures,
    images: Sequence[str],
    words: Sequence[str],
    question: str,
    opening: str = "",
) -> np.ndarray:
    """Logits [images, words] of the first token of the answer, or of that behind its opening; one token per word.

    Raises
    ------
    FewerError
        When two words begin with the same token, so that their logits would be the same.
    """
    ids, model = word_tokens(tuned.words, words, opening), tuned.model
    if isinstance(model, SeeingModel):
        rows = [model.first_logits(pictures.pixels(image), _plain(question), opening)[ids].numpy() for image in images]
        return np.stack(rows)
    asked = torch.tensor([asked_tokens(tuned.words, question, opening)])
    device = model.place.device
    rows = []
    with torch.no_grad():
        for image in images:
            logits = model(_views(model, pictures, [image]), asked.to(device), torch.ones_like(asked).to(device))
            rows.append(logits[0, -1, ids].float().cpu().numpy())
    return np.stack(rows)


def asked_tokens(words: Words, question: str, opening: str = "") -> list[int]:
    """Tokens of a question and of the opening of its answer, and one more, whose logits are those of the next word."""
    return [*words.encode(_plain(question) + "\n"), *(words.encode(opening) if opening else []), words.end]


def level_scores(tuned: Tuned, pictures: Pictures, images: Sequence[str]) -> np.ndarray:
    """Scores 1 to 5 of images, from the probabilities of the five level words (Q-Align)."""
    form = tuned.levels
    logits = word_logits(tuned, pictures, images, LEVELS[::-1], form.question, form.opening)
    return assessment.five_levels(logits)
