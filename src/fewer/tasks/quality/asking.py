"""Ask a tuned model: choices by likelihood or letters, descriptions, and scores from the logits of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fewer.core.errors import FewerError
from fewer.study.vocabulary import LEVELS
from fewer.tasks.quality import assessment
from fewer.tasks.quality.model import QualityModel
from fewer.tasks.quality.perception import most_likely
from fewer.tasks.quality.questions import Question, prompt
from fewer.tasks.quality.records import PLACEHOLDER, Record
from fewer.tasks.quality.seeing import SeeingModel
from fewer.tasks.quality.talks import Pictures, Talks
from fewer.tasks.quality.tuning import Tuned

__all__ = ["choose", "describe", "letters", "level_scores", "word_logits"]

LEVEL_QUESTION = "How is the overall quality of this image?"
"""What is asked for the score of five levels; the converter asks it too."""


def _views(model: QualityModel, pictures: Pictures, image: str) -> torch.Tensor:
    return torch.from_numpy(pictures(image)[None]).to(model.place.device)


def _likelihoods(tuned: Tuned, pictures: Pictures, image: str, text: str, options: Sequence[str]) -> tuple[list, list]:
    if isinstance(tuned.model, SeeingModel):
        return tuned.model.likelihoods(pictures.pixels(image), text, options)
    talks = Talks([Record("", ((text, ""),), image)], pictures, tuned.words, tuned.settings.longest, 0)
    batch = talks.batch([Record("", ((f"{PLACEHOLDER}\n{text}", option),), image) for option in options])
    device = tuned.model.place.device
    parts = [part.to(device) if part is not None else None for part in batch]
    sums, lengths = tuned.model.likelihood(*parts)  # type: ignore[arg-type]
    return sums.tolist(), lengths.tolist()


def choose(tuned: Tuned, pictures: Pictures, questions: Sequence[Question]) -> list[int]:
    """The option whose words are the most likely ones, for each question.

    The end mark counts as a word, so that a short option is no better for being the beginning of a long one.
    """
    return [
        most_likely(_likelihoods(tuned, pictures, q.image, prompt(q, letters=False), q.options)[0]) for q in questions
    ]


def letters(tuned: Tuned, pictures: Pictures, questions: Sequence[Question]) -> list[str]:
    """What the model writes when it is asked for a letter."""
    return [_write(tuned, pictures, q.image, prompt(q), 4) for q in questions]


def describe(tuned: Tuned, pictures: Pictures, images: Sequence[str], question: str) -> dict[str, str]:
    """What the model writes about each image."""
    return {image: _write(tuned, pictures, image, question, 100) for image in images}


def _write(tuned: Tuned, pictures: Pictures, image: str, question: str, most: int) -> str:
    if isinstance(tuned.model, SeeingModel):
        return tuned.model.write(pictures.pixels(image), question, most)
    ids = tuned.words.encode(question.strip() + "\n")
    return tuned.words.decode(tuned.model.answer(_views(tuned.model, pictures, image), ids, tuned.words.end, most))


def word_logits(
    tuned: Tuned, pictures: Pictures, images: Sequence[str], words: Sequence[str], question: str
) -> np.ndarray:
    """Logits [images, words] of the first answer token, one token per word.

    Raises
    ------
    FewerError
        When two words begin with the same token, so that their logits would be the same.
    """
    ids = [tuned.words.encode(word)[0] for word in words]
    if len(set(ids)) != len(ids):
        raise FewerError(f"two of the words {', '.join(words)} begin with the same token; choose other words")
    model = tuned.model
    if isinstance(model, SeeingModel):
        return np.stack([model.first_logits(pictures.pixels(image), question)[ids].numpy() for image in images])
    asked = torch.tensor([[*tuned.words.encode(question.strip() + "\n"), tuned.words.end]])
    device = model.place.device
    rows = []
    with torch.no_grad():
        for image in images:
            logits = model(_views(model, pictures, image), asked.to(device), torch.ones_like(asked).to(device))
            rows.append(logits[0, -1, ids].float().cpu().numpy())
    return np.stack(rows)


def level_scores(tuned: Tuned, pictures: Pictures, images: Sequence[str]) -> np.ndarray:
    """Scores 1 to 5 of images, from the probabilities of the five level words (Q-Align)."""
    logits = word_logits(tuned, pictures, images, LEVELS[::-1], LEVEL_QUESTION)
    return assessment.five_levels(logits)
