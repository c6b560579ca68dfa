"""Tokens that say in the language model's own words how each aspect of an image looks.

A taught encoder knows how bad each aspect is, but its tokens are numbers in no order: a language model has to find out
which of them answers which question, and does not within a short tuning. A reading is therefore one token for each
aspect: the mean of the embeddings of the aspect's words, and one direction times how bad the aspect is. The question
"is it noisy" then shares a word with the token that answers it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewer.study.vocabulary import ASPECTS
from fewer.tasks.quality.convert.facts import ADJECTIVE
from fewer.tasks.quality.words import PlainWords, Words

__all__ = ["READ", "ReadingTokens"]

READ = (*sorted(ASPECTS), "quality")
"""What is read: aspects by name, and the quality as a whole; larger values are worse."""
_MOST = 12  # tokens of an aspect's words


class ReadingTokens(nn.Module):
    """One token for each of :data:`READ`.

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

    def forward(self, values: Tensor, embedding: nn.Module) -> Tensor:
        """Tokens [N, readings, hidden] of values [N, readings]."""
        named = (embedding(self.ids) * self.share[..., None]).sum(1)
        return named + self.own + values[..., None] * self.worse
