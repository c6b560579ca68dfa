"""From text to numbers: a tokenizer of whole words for models trained from nothing, and that of a pretrained model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

__all__ = ["PlainWords", "PretrainedWords", "Words"]

_SPLIT = re.compile(r"\w+|[^\w\s]|\n")


class Words(Protocol):
    """What the model needs of a tokenizer."""

    end: int

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Numbers of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of numbers."""
        ...


class PlainWords:
    """Every word and sign has a number; unknown ones share one.

    Examples
    --------
    >>> words = PlainWords.of(["Is it blurry?", "Yes"])
    >>> words.decode(words.encode("Is it blurry?")), words.encode("zebra")
    ('Is it blurry?', [1])
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = ["<end>", "<unknown>", *[word for word in words if word not in ("<end>", "<unknown>")]]
        self._place = {word: i for i, word in enumerate(self.words)}
        self.end = 0

    @classmethod
    def of(cls, texts: Iterable[str]) -> PlainWords:
        """All words of some texts."""
        return cls(sorted({word for text in texts for word in _SPLIT.findall(text)}))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """See :class:`Words`."""
        return [self._number(word) for word in _SPLIT.findall(text)]

    def _number(self, word: str) -> int:
        """Of a word; one that is known in small or in large letters alone is that one."""
        forms = (word, word.lower(), word.capitalize())
        return next((self._place[form] for form in forms if form in self._place), 1)

    def unknown(self, text: str) -> bool:
        """Whether a text holds a word that has no number of its own."""
        return 1 in self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See :class:`Words`."""
        text = " ".join(self.words[i] for i in ids if i != self.end)
        return re.sub(r"\s+([.,;:?!)'])", r"\1", re.sub(r" ?\n ?", "\n", text))


class PretrainedWords:
    """A tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end = int(tokenizer.eos_token_id)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """See :class:`Words`."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """See :class:`Words`."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)
