"""Tokens that say in the language model's own words how each aspect of an image looks.

A taught encoder knows how bad each aspect is, but its tokens are numbers in no order: a language model has to find out
which of them answers which question, and does not within a short tuning. So what is read reaches it in two more ways.
One token for each aspect is the mean of the embeddings of the aspect's words, and one direction times how bad the
aspect is. And wherever the text names an aspect, its word carries how true the encoder finds it: in "is it noisy", the
word "noisy" is embedded a little further along a direction that is learnt, the noisier the image is; so are the words
behind it, up to the next aspect, among them the place where the answer begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.study.vocabulary import ASPECTS
from fewer.tasks.quality.convert.facts import ADJECTIVE
from fewer.tasks.quality.words import PlainWords, Words

__all__ = ["READ", "ReadingTokens"]

READ = (*sorted(ASPECTS), "quality")
"""What is read: aspects by name, and the quality as a whole; larger values are worse."""
_MOST = 12  # tokens of an aspect's words
_WORDS, _LONGEST = 320, 6  # words and phrases that carry a reading, and their tokens at most


def _said() -> Iterator[tuple[str, float, str]]:
    """Aspects, whether a word blames (1) or praises (-1), and the word; nouns ask how bad."""
    yield "quality", 1.0, "quality"
    for name, aspect in ASPECTS.items():
        for sign, found in ((1.0, (name, ADJECTIVE[name], *aspect.nouns, *aspect.bad)), (-1.0, aspect.good)):
            for word in found:
                yield name, sign, word


class ReadingTokens(nn.Module):
    """One token for each of :data:`READ`, and what words of a text carry.

    Parameters
    ----------
    hidden
        Width of the language model's embeddings.

    Examples
    --------
    >>> tokens = ReadingTokens(8)
    >>> tokens(torch.zeros(2, len(READ)), nn.Embedding(20, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.ids: Tensor
        self.share: Tensor
        self.register_buffer("ids", torch.zeros(len(READ), _MOST, dtype=torch.long))
        self.register_buffer("share", torch.zeros(len(READ), _MOST))  # of the mean, 0 where there is no word
        self.phrases: Tensor
        self.about: Tensor
        # tokens of each word from its last one back, -1 before its first; and [words, readings], 1 or -1 where it is of
        self.register_buffer("phrases", torch.full((_WORDS, _LONGEST), -1))
        self.register_buffer("about", torch.zeros(_WORDS, len(READ)))
        self.true = nn.Parameter(torch.zeros(hidden))  # of a word that names an aspect
        self.after = nn.Parameter(torch.zeros(hidden))  # of the words behind it, up to the next one
        self.own = nn.Parameter(torch.zeros(len(READ), hidden))
        self.worse = nn.Parameter(torch.zeros(hidden))

    def settle(self, words: Words, embedding: nn.Module) -> None:
        """Take the words of each aspect, and steps as large as the embeddings are."""
        weight: Any = embedding.weight
        size = float(weight.detach().float().std())
        with torch.no_grad():
            self.own.normal_(0, 0.3 * size)
            self.worse.normal_(0, size)
        for row, name in enumerate(READ):
            told = ["quality"] if name == "quality" else [name, ADJECTIVE[name], ASPECTS[name].good[0]]
            # in the middle of a text, tokenizers of parts of words write a word with its space
            before = "" if isinstance(words, PlainWords) else " "
            found = [number for word in told for number in words.encode(before + word)]
            known = [number for number in found if not (isinstance(words, PlainWords) and number == 1)][:_MOST]
            self.ids[row, : len(known)] = torch.tensor(known, dtype=torch.long)
            self.share[row, : len(known)] = 1 / max(1, len(known))
        self._settle_phrases(words)

    def _settle_phrases(self, words: Words) -> None:
        """Note how each word of each aspect is written; a word of praise is the truer, the less bad the aspect is."""
        told: dict[tuple[int, ...], tuple[int, float]] = {}
        for name, sign, word in _said():
            # a tokenizer of parts of words writes a word in another way at the beginning and in the middle of a text
            for text in (word,) if isinstance(words, PlainWords) else (f" {word}", word, word.capitalize()):
                found = tuple(words.encode(text))
                if 0 < len(found) <= _LONGEST and not (isinstance(words, PlainWords) and 1 in found):
                    told.setdefault(found, (READ.index(name), sign))
        for row, (found, (of, sign)) in enumerate(list(told.items())[:_WORDS]):
            self.phrases[row, : len(found)] = torch.tensor(found[::-1])
            self.about[row, of] = sign

    def told(self, ids: Tensor, values: Tensor) -> Tensor:
        """What the words of a text [B, T] carry besides their embeddings, [B, T, hidden], of values [B, readings]."""
        back = torch.stack([F.pad(ids, (shift, 0), value=-2)[:, : ids.shape[1]] for shift in range(_LONGEST)], 2)
        # [B, T, words]: one that ends at this token; rows without a word fit everywhere, and are about nothing
        named = ((back[:, :, None] == self.phrases) | (self.phrases < 0)).all(3)
        lengths = named * (self.phrases >= 0).sum(1)
        named &= lengths == lengths.amax(2, keepdim=True)  # "in focus" praises, though "focus" alone is a noun
        about = torch.einsum("btw,wr->btr", named.to(values.dtype), self.about)
        amount = torch.einsum("btr,br->bt", about, values).clamp(-3, 3)
        place = torch.arange(1, ids.shape[1] + 1, device=ids.device) * about.any(2)
        last = place.cummax(1).values  # of the word that was the last one to name an aspect, from 1; 0 before any
        carried = F.pad(amount, (1, 0)).gather(1, last)
        return amount[..., None] * self.true + carried[..., None] * self.after

    def forward(self, values: Tensor, embedding: nn.Module) -> Tensor:
        """Tokens [N, readings, hidden] of values [N, readings]."""
        named = (embedding(self.ids) * self.share[..., None]).sum(1)
        return named + self.own + values[..., None] * self.worse
