"""How a model is asked for one of the five rating words: in the very form in which it learnt them.

Q-Align teaches whole sentences ("The quality of the image is good."), converted feedback single words ("good"). The
logits of the words mean something only behind the words that stood in front of them in the training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewer.core.errors import FewerError
from fewer.study.vocabulary import LEVELS
from fewer.tasks.quality.records import PLACEHOLDER, Record
from fewer.tasks.quality.words import PlainWords, Words

__all__ = ["LEVEL_QUESTION", "LevelForm", "NoLevels", "form_of", "word_tokens"]

LEVEL_QUESTION = "How is the overall quality of this image?"
"""What is asked for the score of five levels where the training has no form of its own; the converter asks it too."""
_ANSWER = re.compile(rf"^(|.{{1,60}}\s)({'|'.join(LEVELS)})\W*$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class LevelForm:
    """A question, and how its answer begins before the rating word.

    Examples
    --------
    >>> LevelForm().note
    "five levels (Q-Align) after 'How is the overall quality of this image?'"
    """

    question: str = LEVEL_QUESTION
    opening: str = ""

    @property
    def note(self) -> str:
        """For people."""
        return f"five levels (Q-Align) after {self.question!r}" + (f" and {self.opening!r}" if self.opening else "")

    @classmethod
    def read(cls, told: Any) -> LevelForm:
        """Of a recipe; the usual one where it says none."""
        texts = [told.get(key) for key in ("question", "opening")] if isinstance(told, Mapping) else []
        return cls(*texts) if texts and all(isinstance(text, str) for text in texts) else cls()  # type: ignore[arg-type]


class NoLevels(FewerError):
    """A model that cannot tell the rating words apart, and so gives no scores; it may still answer and describe."""


def form_of(records: Sequence[Record]) -> LevelForm:
    """The form in which most conversations about one image ask for the quality and answer with a rating word.

    Examples
    --------
    >>> told = "The quality of the image is poor."
    >>> form_of([Record("a", (("<image>\\nRate the quality.", told),), "a.png")]).opening
    'The quality of the image is'
    """
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        if len(record.images) == 1 and len(record.turns) == 1:
            question, answer = record.turns[0]
            question = question.replace(PLACEHOLDER, "").strip()
            found = _ANSWER.match(answer.strip())
            # options of a multiple choice would be part of the question
            if found and "quality" in question.lower() and "\n" not in question:
                counts[(question, found[1].strip())] += 1
    return LevelForm(*counts.most_common(1)[0][0]) if counts else LevelForm()


def word_tokens(words: Words, options: Sequence[str], opening: str) -> list[int]:
    """The token that each option begins with behind an opening.

    Raises
    ------
    FewerError
        A :class:`NoLevels` when two begin with the same token, so that their logits would be the same, or when the
        model never saw them.
    """
    lost = [option for option in options if isinstance(words, PlainWords) and words.unknown(option)]
    if len(lost) > 1:  # all that is unknown shares one token
        raise NoLevels(
            f"the model never saw the words {', '.join(lost)}, so it cannot give scores; tune on conversations that "
            "rate the quality too, such as those that fewer study convert makes of a table of opinions"
        )
    before = words.encode(opening) if opening else []
    ids = []
    for option in options:
        whole = words.encode(f"{opening} {option}" if opening else option)
        if not whole:
            raise FewerError(f"the tokenizer has no token for {option!r}, so it cannot be asked for levels")
        if whole[: len(before)] != before or len(whole) == len(before):
            raise FewerError(
                f"the tokenizer does not keep {opening!r} as it is before {option!r}; tune on single words"
            )
        ids.append(whole[len(before)])
    if len(set(ids)) != len(ids):
        raise NoLevels(f"two of the words {', '.join(options)} begin with the same token; choose other words")
    return ids
