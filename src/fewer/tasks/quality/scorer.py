"""A tuned model as a plain module from views to the logits of the five levels, so that it can be compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.study.vocabulary import LEVELS
from fewer.tasks.quality.asking import asked_tokens
from fewer.tasks.quality.levels import word_tokens
from fewer.tasks.quality.model import QualityModel
from fewer.tasks.quality.talks import Pictures
from fewer.tasks.quality.tuning import Tuned

__all__ = ["LevelScorer", "views_of"]


class LevelScorer(nn.Module):
    """Encoder, projector and language model, asked for the overall quality.

    ``fewer.compress(LevelScorer(tuned), views, "weights=50%")`` cuts and rounds the layers of all three; what it gives
    goes back with :meth:`put_into`, to be asked other questions and to be scored.

    Parameters
    ----------
    tuned
        Of our own layout; vision-language models of transformers have a processor before them, which is no module.

    Raises
    ------
    FewerError
        For a vision-language model of transformers.
    """

    def __init__(self, tuned: Tuned) -> None:
        super().__init__()
        if not isinstance(tuned.model, QualityModel):
            raise FewerError("a vision-language model of transformers is compressed by its own parts, not as a whole")
        self.model = tuned.model
        form = tuned.levels
        asked = asked_tokens(tuned.words, form.question, form.opening)
        self.ids: Tensor
        self.levels: Tensor
        self.register_buffer("ids", torch.tensor([asked]))
        self.register_buffer("levels", torch.tensor(word_tokens(tuned.words, LEVELS[::-1], form.opening)))

    @classmethod
    def empty(cls, model: QualityModel, asked: int) -> LevelScorer:
        """A scorer whose words come with its weights.

        Parameters
        ----------
        model
            With any weights.
        asked
            Words of the question, with the end mark.
        """
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.model = model
        made.register_buffer("ids", torch.zeros(1, asked, dtype=torch.long))
        made.register_buffer("levels", torch.zeros(len(LEVELS), dtype=torch.long))
        return made

    def forward(self, views: Tensor) -> Tensor:
        """Logits [N, 5], excellent first, of views [N, V, 3, H, W] in 0..255."""
        ids = self.ids.expand(len(views), -1)
        logits: Any = self.model(views, ids, torch.ones_like(ids))
        return logits[:, -1, self.levels]

    @staticmethod
    def put_into(tuned: Tuned, compressed: nn.Module) -> Tuned:
        """The tuned model with the compressed parts in the place of its own; the one that is given stays as it is."""
        model: Any = compressed
        return replace(tuned, model=model.model.eval())


def views_of(pictures: Pictures, images: Sequence[str]) -> Tensor:
    """Views [N, V, 3, H, W] of images, as floating-point numbers in 0..255, for :class:`LevelScorer`."""
    return torch.from_numpy(np.stack([pictures(name) for name in images])).float()
