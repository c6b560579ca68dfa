"""What conversations say of how images look, as numbers; and an encoder that learns to read it off the pixels.

Where there are no clean photos to distort, people's own words are the only truth. Parsed by the vocabulary, they teach
the encoder of statistics in seconds, before a language model reads its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.core.progress import SILENT, Progress
from fewer.study.vocabulary import ASPECTS, level_of, statements
from fewer.tasks.quality.convert.facts import aspect_of
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.readings import READ
from fewer.tasks.quality.records import PLACEHOLDER, Record
from fewer.tasks.quality.talks import Pictures
from fewer.training.loop import fit
from fewer.training.optimise import Optimiser
from fewer.training.settings import LoopSettings

__all__ = ["learn_told", "what_is_told"]

_LEAST = 8  # images of which something must be told
_MOST = 4000  # images that are measured
_STEPS = (150, 1200)


def what_is_told(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """By image, how bad each of :data:`~fewer.tasks.quality.readings.READ` is, 0 to 1, over all that is said of it.

    NaN stands where nothing is said. Answers about several images, and letters of options, say nothing here.

    Examples
    --------
    >>> told = what_is_told([Record("a", (("<image>\\nIs this image noisy?", "Yes"),), "a.png")])
    >>> dict(zip(READ, told["a.png"].tolist()))["noise"]
    1.0
    """
    found: dict[str, list[list[float]]] = {}
    for record in records:
        if len(record.images) == 1:
            lists = found.setdefault(record.images[0], [[] for _ in READ])
            for question, answer in record.turns:
                for name, value in _said(question.replace(PLACEHOLDER, "").strip(), answer.strip()):
                    lists[READ.index(name)].append(value)
    means = {image: np.array([np.mean(v) if v else np.nan for v in lists]) for image, lists in found.items()}
    return {image: values for image, values in means.items() if np.isfinite(values).any()}


def _said(question: str, answer: str) -> list[tuple[str, float]]:
    """Names of what an answer is about, with how bad it says that it is."""
    if "\n" in question:  # options of a multiple choice; the answer is a letter
        return []
    plain = answer.lower().rstrip(".!")
    if plain in ("yes", "no"):
        claims = statements(question)[:1]
        return [(claim.aspect, float((claim.polarity == "bad") == (plain == "yes"))) for claim in claims]
    level = level_of(answer) or (level_of(f"quality {answer}") if "quality" in question.lower() else None)
    found = [("quality", (5 - level) / 4)] if level is not None else []
    aspect = aspect_of(question)
    if aspect is not None and plain in ASPECTS[aspect].answer:
        return [*found, (aspect, ASPECTS[aspect].answer.index(plain) / 2)]
    return found + [(said.aspect, float(said.polarity == "bad")) for said in statements(answer)]


def learn_told(
    encoder: StatisticsEncoder,
    told: dict[str, np.ndarray],
    pictures: Pictures,
    names: Sequence[str],
    *,
    seed: int = 0,
    progress: Progress = SILENT,
) -> None:
    """Teach an encoder in place what is told of images; where too little is told, only the units of its statistics.

    Parameters
    ----------
    told
        See :func:`what_is_told`.
    pictures
        Views of the images.
    names
        Images whose statistics give the units where too little is told.
    """
    enough = encoder.judge is not None and len(told) >= _LEAST
    chosen = list(told)[:_MOST] if enough else list(names)
    if not chosen:
        return
    rows: list[tuple[Tensor, Tensor]] = []
    with progress.stage("look", len(chosen)) as stage:
        for start in range(0, len(chosen), 32):
            part = chosen[start : start + 32]
            pixels = torch.from_numpy(np.stack([pictures(name) for name in part])).flatten(0, 1).float() / 255
            rows.append(encoder.measure(pixels))
            stage.advance(len(part))
    whole, cells = (torch.cat(column) for column in zip(*rows, strict=True))
    encoder.settle(whole, cells)
    if enough:
        views = len(whole) // len(chosen)
        wanted = torch.from_numpy(np.stack([told[name] for name in chosen])).float().repeat_interleave(views, 0)
        _learn(encoder, whole, cells, wanted, seed)


def _learn(encoder: StatisticsEncoder, whole: Tensor, cells: Tensor, wanted: Tensor, seed: int) -> None:
    judge: Any = encoder.judge
    known = wanted.isfinite()
    wanted = wanted.nan_to_num(0.5)
    batch = min(64, len(whole))
    steps = int(np.clip(10 * len(whole) / batch, *_STEPS))
    order = torch.from_numpy(np.random.default_rng([seed, 63]).integers(0, len(whole), (steps, batch)))

    def objective(net: nn.Module, step: int) -> Tensor:
        of = order[step]
        noise = 0.1 * encoder.whole_scale * torch.randn(len(of), whole.shape[1])  # pyright: ignore
        logits = judge(encoder.tell(whole[of] + noise, cells[of])[:, :2].flatten(1))
        losses = F.binary_cross_entropy_with_logits(logits, wanted[of], reduction="none")
        return (losses * known[of]).sum() / known[of].sum().clamp_min(1)

    settings = LoopSettings(steps=steps, rate_shape="cosine", rate_warm_up=0.2, seed=seed)
    encoder.train()
    fit(encoder, objective, settings, optimiser=Optimiser("adamw", 3e-3, 0.05, clip=1.0))
    with torch.no_grad():
        found = judge(encoder.eval().tell(whole, cells)[:, :2].flatten(1))
        unit = found.std(0, correction=0).clamp_min(0.1)
        judge.bias.copy_((judge.bias - found.mean(0)) / unit)
        judge.weight.div_(unit[:, None])
