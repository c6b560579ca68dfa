"""A vision-language model of three parts: encoders of views, a projector of two layers, and a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.tasks.quality.records import MOST_IMAGES
from fewer.tasks.quality.words import Words

__all__ = ["IGNORED", "QualityModel", "lay_out"]

IGNORED = -100
"""Label of positions that no loss is taken at."""


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
    """

    def __init__(self, language: nn.Module, encoders: Sequence[nn.Module], hidden: int, views: int) -> None:
        super().__init__()
        self.language, self.encoders = language, nn.ModuleList(encoders)
        widths: list[Any] = [e.width for e in encoders]
        self.projectors = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
            for width in map(int, widths)
        )
        self.place = nn.Parameter(0.02 * torch.randn(views, 1, hidden))  # which view a token is of
        self.later = nn.Parameter(torch.zeros(MOST_IMAGES - 1, 1, 1, hidden))  # which image, after the first one

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return len(self.place) * sum(int(encoder.tokens) for encoder in self.encoders)  # type: ignore[arg-type]

    def see(self, views: Tensor) -> Tensor:
        """Image tokens [B, images x image_tokens, hidden] of views uint8 [B, images x V, 3, H, W]."""
        batch, count = views.shape[:2]
        pixels = views.flatten(0, 1).float() / 255
        images = count // len(self.place)
        place = self.place.repeat(images, 1, 1)
        if images > 1:
            later = self.later[: images - 1].expand(-1, len(self.place), -1, -1).flatten(0, 1)
            place = torch.cat([place[: len(self.place)], place[len(self.place) :] + later])
        parts = []
        for encoder, projector in zip(self.encoders, self.projectors, strict=True):
            tokens = projector(encoder(pixels)).unflatten(0, (batch, count)) + place[None]
            parts.append(tokens.flatten(1, 2))
        return torch.cat(parts, 1)

    def forward(self, views: Tensor | None, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, T, words] at the text positions.

        Parameters
        ----------
        views
            uint8 [B, images x V, 3, H, W]; None for text alone.
        ids, mask
            [B, T] words, padded at the end, and where there are some.
        """
        embedded = self.language.get_input_embeddings()(ids)  # type: ignore[operator]
        skip = 0
        if views is not None:
            seen = self.see(views).to(embedded.dtype)
            embedded, skip = torch.cat([seen, embedded], 1), seen.shape[1]
            mask = torch.cat([mask.new_ones(len(mask), skip), mask], 1)
        done = self.language(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
        # the logits that predict text position t stand at t - 1; of the first one, at the last image token
        return done[:, skip - 1 : -1] if skip else F.pad(done[:, :-1], (0, 0, 1, 0))

    def loss(self, views: Tensor | None, ids: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Mean cross entropy at the answers; 0 where all of them lie beyond the longest conversation."""
        logits = self(views, ids, mask)
        told = {"ignore_index": IGNORED, "reduction": "sum"}
        summed = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), **told)
        return summed / (labels != IGNORED).sum().clamp_min(1)

    @torch.no_grad()
    def likelihood(self, views: Tensor | None, ids: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood [B] of the labels, summed, and how many there are."""
        logs = self(views, ids, mask).float().log_softmax(2)
        of = labels != IGNORED
        picked = logs.gather(2, labels.clamp_min(0)[..., None])[..., 0]
        return (picked * of).sum(1), of.sum(1)

    @torch.no_grad()
    def answer(self, views: Tensor | None, ids: list[int], end: int, most: int = 80) -> list[int]:
        """Words that follow a question, the most likely one each time, for one conversation."""
        made: list[int] = []
        seen = None if views is None else self.see(views)
        embed: Any = self.language.get_input_embeddings()  # type: ignore[operator]
        device = self.place.device
        for _ in range(most):
            text = embed(torch.tensor([ids + made], device=device))
            both = text if seen is None else torch.cat([seen.to(text.dtype), text], 1)
            word = int(self.language(inputs_embeds=both, use_cache=False).logits[0, -1].argmax())
            if word == end:
                break
            made.append(word)
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
