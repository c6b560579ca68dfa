"""CycleGAN: both directions at once, held together by the way back (Zhu et al. 2017); gives the streams of LE-UDA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewer.adaptation.problem import Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.translate.cut import BATCH, GAN, gan_settings
from fewer.adaptation.translate.losses import fooled, told_apart
from fewer.adaptation.translate.networks import Generator, patch_discriminator
from fewer.adaptation.translate.slices import SliceDraws, Translator
from fewer.training.history import Fit
from fewer.training.loop import fit
from fewer.training.optimise import Player

__all__ = ["CYCLE", "train_cyclegan"]

CYCLE = 10.0
"""Weight of the way back, as in the paper; the identity loss has half of it."""


def train_cyclegan(
    problem: Problem, settings: AdaptationSettings, work: Work, source: list[Pair]
) -> tuple[Translator, Translator, Fit]:
    """Train translators from source to target and back.

    Slices are translated one by one (2-D), since the second generator would need neighbours of the first one's.

    Parameters
    ----------
    source
        Images of the source, labelled or not; masks are not used.

    Returns
    -------
    forth, back, stage
        Source to target, target to source, and the training.
    """
    loop: Any = settings
    seed, channels, width = loop.seed, problem.channels, settings.translator_width
    torch.manual_seed(seed)
    forth, back = Generator(channels, width), Generator(channels, width)
    in_source, in_target = patch_discriminator(channels, width), patch_discriminator(channels, width)
    model = nn.ModuleDict({"forth": forth, "back": back, "in_source": in_source, "in_target": in_target})
    xs = SliceDraws([(image, None) for image, _ in source], settings.translator_patch, 1)
    ys = SliceDraws([(image, None) for image in problem.target], settings.translator_patch, 1)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        return xs.batch((seed, 41, step), BATCH)[0], ys.batch((seed, 42, step), BATCH)[0]

    def discriminate(_: Any, step: int) -> Tensor:
        x, y = draw(step)
        with torch.no_grad():
            fake, shown = forth(x), back(y)
        return told_apart(in_target(y), in_target(fake)) + told_apart(in_source(x), in_source(shown))

    def translate(_: Any, step: int) -> dict[str, Tensor]:
        x, y = draw(step)
        fake, shown = forth(x), back(y)
        cycle = (back(fake) - x).abs().mean() + (forth(shown) - y).abs().mean()
        same = (forth(y) - y).abs().mean() + (back(x) - x).abs().mean()
        return {
            "gan": fooled(in_target(fake)) + fooled(in_source(shown)),
            "cycle": CYCLE * cycle,
            "identity": CYCLE / 2 * same,
        }

    players = [
        Player("discriminators", discriminate, ["in_source", "in_target"], GAN),
        Player("generators", translate, ["forth", "back"], GAN),
    ]
    done = fit(
        model,
        players,
        gan_settings(settings),
        name="cyclegan",
        progress=work.progress,
        checkpoint=work.checkpoint("cyclegan"),
    )
    return Translator(forth), Translator(back), done
