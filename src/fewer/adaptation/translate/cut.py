"""CUT: contrastive unpaired translation, and its form that segments while it translates.

T. Park, A. Efros, R. Zhang, J.-Y. Zhu, *Contrastive Learning for Unpaired Image-to-Image Translation*, ECCV 2020. The
paper gives the loss ``LSGAN + 0.5 (NCE(x, G(x)) + NCE(y, G(y)))``, the temperature and the Adam of GANs; the size of
the networks, 64 positions instead of 256 and the number of steps are chosen here, for two cores. The segmentation head
on the encoder, the segmenter of the fake and the edge loss follow arXiv 2311.12437, with weights 0.5, 0.5 and 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewer.adaptation.problem import Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.translate.losses import dice_ce, edge_loss, fooled, patch_nce, told_apart
from fewer.adaptation.translate.networks import Generator, Sampler, patch_discriminator, small_unet
from fewer.adaptation.translate.slices import SliceDraws, Translator
from fewer.training.history import Fit
from fewer.training.loop import fit
from fewer.training.optimise import Optimiser, Player
from fewer.training.settings import LoopSettings

__all__ = ["GAN", "gan_settings", "train_cut"]

GAN = Optimiser("adam", 2e-4, decay=0.0, betas=(0.5, 0.999))
"""How all parts of a GAN learn."""
POSITIONS = 64
BATCH = 2
LATE = 1 / 6
"""Share of the training after which the fake is segmented too."""


def gan_settings(settings: AdaptationSettings) -> LoopSettings:
    """The loop of a translator: a constant rate that falls at the end, validated never."""
    loop: Any = settings
    steps = settings.translator_steps
    return LoopSettings(
        steps=steps, seed=loop.seed, every=max(1, steps // 8), device=loop.device, clip=None, rate_shape="cosine"
    )


def train_cut(problem: Problem, settings: AdaptationSettings, work: Work) -> tuple[Translator, Fit]:
    """Train a translator from source to target.

    Modules ``segmentation-heads`` and ``edges`` can be switched off; then it is plain CUT.
    """
    around, classes, seed = settings.translator_slices, len(problem.classes), int(getattr(settings, "seed"))  # noqa: B009
    heads, edges = settings.uses("segmentation-heads"), settings.uses("edges")
    torch.manual_seed(seed)
    channels = problem.channels
    g = Generator(channels * around, settings.translator_width, outputs=channels, classes=classes if heads else 0)
    parts: dict[str, nn.Module] = {
        "generator": g,
        "sampler": Sampler(g.widths),
        "discriminator": patch_discriminator(channels, settings.translator_width),
    }
    if heads:
        parts["segmenter"] = small_unet(channels, classes)
    model = nn.ModuleDict(parts)
    source = SliceDraws(problem.source, settings.translator_patch, around)
    target = SliceDraws([(image, None) for image in problem.target], settings.translator_patch, around)
    steps = settings.translator_steps

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor]:
        x, mask = source.batch((seed, 31, step), BATCH)
        return x, mask, target.batch((seed, 32, step), BATCH)[0]

    def contrast(image: Tensor, other: Tensor, step: int) -> Tensor:
        before, after = g.taps(image), g.taps(_repeat(other, around))
        generator = torch.Generator().manual_seed(1_000_003 * seed + step)
        places = [torch.randint(tap[0, 0].numel(), (POSITIONS,), generator=generator) for tap in before]
        sampler = model["sampler"]
        return patch_nce(sampler(after, places), sampler(before, places))

    def discriminate(_: Any, step: int) -> Tensor:
        x, _mask, y = draw(step)
        with torch.no_grad():
            fake = g(x)
        return told_apart(model["discriminator"](_middle(y, channels)), model["discriminator"](fake))

    def translate(_: Any, step: int) -> dict[str, Tensor]:
        x, mask, y = draw(step)
        fake = g(x)
        losses = {
            "gan": fooled(model["discriminator"](fake)),
            "contrast": 0.5 * (contrast(x, fake, step) + contrast(y, g(y), step)),
        }
        if edges:
            losses["edges"] = edge_loss(_middle(x, channels), fake)
        if heads:
            losses["segment source"] = 0.5 * dice_ce(g.segment(x), mask)
            late = float(step >= LATE * steps)  # before, the fake shows nothing yet
            losses["segment fake"] = 0.5 * late * dice_ce(model["segmenter"](fake), mask)
        return losses

    learners = ["generator", "sampler", *(["segmenter"] if heads else [])]
    players = [
        Player("discriminator", discriminate, ["discriminator"], GAN),
        Player("generator", translate, learners, GAN),
    ]
    done = fit(
        model,
        players,
        gan_settings(settings),
        name="translator",
        progress=work.progress,
        checkpoint=work.checkpoint("translator"),
        key=work.key,
    )
    return Translator(g, around), done


def _middle(x: Tensor, channels: int) -> Tensor:
    """The slice itself among its neighbours."""
    first = (x.shape[1] // channels // 2) * channels
    return x[:, first : first + channels]


def _repeat(x: Tensor, around: int) -> Tensor:
    return x.repeat(1, around, 1, 1) if around > 1 else x
