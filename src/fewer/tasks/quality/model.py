"""A vision-language model of three parts: encoders of views, a projector of two layers, and a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.tasks.quality.readings import READ, ReadingTokens
from fewer.tasks.quality.records import MOST_IMAGES
from fewer.tasks.quality.words import Words

__all__ = ["ANSWER_POWER", "IGNORED", "QualityModel", "answer_weight", "lay_out"]

IGNORED = -100
"""Label of positions that no loss is taken at."""
ANSWER_POWER = 0.5
"""How the weight of an answer grows with its length: with the square root, as InternVL 2.5 does (2412.05271). A text of
50 words would otherwise weigh as much as 25 answers of one word and an end mark."""


def answer_weight(lengths: Tensor, power: float) -> Tensor:
    """Weight of each token of answers of these lengths, so that an answer weighs its length to the power.

    Examples
    --------
    >>> answer_weight(torch.tensor([1, 4, 0]), 0.5).tolist()
    [1.0, 0.5, 1.0]
    """
    return lengths.clamp_min(1).float() ** (power - 1)


class QualityModel(nn.Module):
    """Image tokens stand before the text; the loss is taken at the answers alone.

    Parameters
    ----------
    language
        A causal language model of transformers, perhaps with adapters.
    encoders
        Each gives tokens [N, tokens, width] and has ``tokens`` and ``width``.
    hidden
        Width of the language model's embeddings.
    views
        Views per image.
    readings
        Whether the first encoder, one of statistics, also tells how bad each aspect is.
    """

    def __init__(
        self, language: nn.Module, encoders: Sequence[nn.Module], hidden: int, views: int, readings: bool = False
    ) -> None:
        super().__init__()
        self.language, self.encoders = language, nn.ModuleList(encoders)
        widths: list[Any] = [e.width for e in encoders]
        self.projectors = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
            for width in map(int, widths)
        )
        self.place = nn.Parameter(0.02 * torch.randn(views, 1, hidden))  # which view a token is of
        self.later = nn.Parameter(torch.zeros(MOST_IMAGES - 1, 1, 1, hidden))  # which image, after the first one

        self.readings = ReadingTokens(hidden) if readings else None

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        more = len(READ) if self.readings is not None else 0
        return len(self.place) * (more + sum(int(encoder.tokens) for encoder in self.encoders))  # type: ignore[arg-type]

    def see(self, views: Tensor) -> tuple[Tensor, Tensor | None]:
        """Image tokens [B, images x image_tokens, hidden] of views uint8 [B, images x V, 3, H, W], and readings.

        Returns
        -------
        tuple
            The tokens, and how bad each aspect is [B, readings]; None without readings, and for several images, since
            no word says which one it is about.
        """
        batch, count = views.shape[:2]
        pixels = views.flatten(0, 1).float() / 255
        images = count // len(self.place)
        place = self.place.repeat(images, 1, 1)
        if images > 1:
            later = self.later[: images - 1].expand(-1, len(self.place), -1, -1).flatten(0, 1)
            place = torch.cat([place[: len(self.place)], place[len(self.place) :] + later])
        found = [encoder(pixels) for encoder in self.encoders]
        parts = [projector(tokens) for projector, tokens in zip(self.projectors, found, strict=True)]
        values = None
        if self.readings is not None:
            first: Any = self.encoders[0]
            values = first.readings(found[0])
            # last, so that they stand next to the question
            parts.append(self.readings(values, self.language.get_input_embeddings()))  # type: ignore[operator]
            values = values.unflatten(0, (batch, count)).mean(1) if images == 1 else None
        laid = [(part.unflatten(0, (batch, count)) + place[None]).flatten(1, 2) for part in parts]
        return torch.cat(laid, 1), values

    def _read(self, ids: Tensor, values: Tensor | None) -> Tensor:
        """Embeddings of words [B, T]; those that name an aspect carry what was read of it."""
        embedded = self.language.get_input_embeddings()(ids)  # type: ignore[operator]
        if values is None or self.readings is None:
            return embedded
        return embedded + self.readings.told(ids, values).to(embedded.dtype)

    def forward(self, views: Tensor | None, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, T, words] at the text positions.

        Parameters
        ----------
        views
            uint8 [B, images x V, 3, H, W]; None for text alone.
        ids, mask
            [B, T] words, padded at the end, and where there are some.
        """
        seen, values = (None, None) if views is None else self.see(views)
        embedded, skip = self._read(ids, values), 0
        if seen is not None:
            embedded, skip = torch.cat([seen.to(embedded.dtype), embedded], 1), seen.shape[1]
            mask = torch.cat([mask.new_ones(len(mask), skip), mask], 1)
        done = self.language(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
        # the logits that predict text position t stand at t - 1; of the first one, at the last image token
        return done[:, skip - 1 : -1] if skip else F.pad(done[:, :-1], (0, 0, 1, 0))

    def loss(
        self, views: Tensor | None, ids: Tensor, labels: Tensor, mask: Tensor, power: float = ANSWER_POWER
    ) -> Tensor:
        """Mean cross entropy at the answers; 0 where all of them lie beyond the longest conversation.

        Parameters
        ----------
        power
            An answer of n tokens weighs n to this power: 1 counts tokens alike, 0 answers alike.
        """
        logits = self(views, ids, mask)
        losses = F.cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=IGNORED, reduction="none")
        lengths = (labels != IGNORED).sum(1)
        weights = answer_weight(lengths, power)
        return (losses.sum(1) * weights).sum() / (lengths * weights).sum().clamp_min(1)

    @torch.no_grad()
    def likelihood(self, views: Tensor | None, ids: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood [B] of the labels, summed, and how many there are."""
        logs = self(views, ids, mask).float().log_softmax(2)
        of = labels != IGNORED
        picked = logs.gather(2, labels.clamp_min(0)[..., None])[..., 0]
        return (picked * of).sum(1), of.sum(1)

    @property
    def _keeps(self) -> str:
        """What the language model calls the argument with what it has read before; transformers 5.4 renamed it."""
        inside: Any = getattr(self.language, "get_base_model", lambda: self.language)()
        return "cache" if "cache" in signature(inside.forward).parameters else "past_key_values"

    @torch.no_grad()
    def answer(self, views: Tensor | None, ids: list[int], end: int, most: int = 80) -> list[int]:
        """Words that follow a question, the most likely one each time, for one conversation."""
        made: list[int] = []
        device, known, keeps = self.place.device, {}, self._keeps
        seen, values = (None, None) if views is None else self.see(views)
        row = self._read(torch.tensor([ids], device=device), values)
        if seen is not None:
            row = torch.cat([seen.to(row.dtype), row], 1)
        for _ in range(most):
            done = self.language(inputs_embeds=row, use_cache=True, **known)
            word = int(done.logits[0, -1].argmax())
            if word == end:
                break
            made.append(word)
            text = torch.tensor([[*ids, *made]], device=device)  # a phrase may have begun before
            new, kept = self._read(text, values)[:, -1:], getattr(done, keeps, None)
            # a language model that keeps nothing of what it read, or keeps it under another name, reads it all again
            known, row = ({keeps: kept}, new) if kept is not None else ({}, torch.cat([row, new], 1))
        return made


def lay_out(words: Words, turns: Sequence[tuple[str, str]], longest: int) -> tuple[list[int], list[int]]:
    """Words and labels of a conversation: questions are ignored, each answer ends with the end mark.

    Examples
    --------
    >>> from fewer.tasks.quality.words import PlainWords
    >>> lay_out(PlainWords(["a", "b"]), [("a", "b")], 10)
    ([2, 3, 0], [-100, 3, 0])
    """
    ids: list[int] = []
    labels: list[int] = []
    for question, answer in turns:
        asked, told = words.encode(question), [*words.encode(answer), words.end]
        ids += asked + told
        labels += [IGNORED] * len(asked) + told
    return ids[:longest], labels[:longest]
