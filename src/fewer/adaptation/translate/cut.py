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
from fewer.training.loop import Special, fit
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
    """The loop of a translator: a constant rate that falls at the end, validated never.

    Its networks are small and stay on the CPU wherever the segmentation trains.
    """
    loop: Any = settings
    steps = settings.translator_steps
    return LoopSettings(
        steps=steps, seed=loop.seed, every=max(1, steps // 8), device="cpu", clip=None, rate_shape="cosine"
    )


def train_cut(problem: Problem, settings: AdaptationSettings, work: Work) -> tuple[Translator, Fit]:
    """Train a translator from source to target.

    Modules ``segmentation-heads`` and ``edges`` can be switched off; then it is plain CUT.
    """
    game = _Game(problem, settings)
    done = fit(
        game.model,
        game.players(),
        gan_settings(settings),
        name="translator",
        progress=work.progress,
        checkpoint=work.checkpoint("translator"),
        special=Special(splits=True),  # the number of a batch says how far the training is
    )
    return Translator(game.generator, settings.translator_slices), done


class _Game:
    """The networks of a CUT, the slices that they see, and the losses by which they play against each other."""

    def __init__(self, problem: Problem, settings: AdaptationSettings) -> None:
        self.seed = int(getattr(settings, "seed"))  # noqa: B009 (the settings of a task extend the loop's)
        self.around, self.steps = settings.translator_slices, settings.translator_steps
        self.channels, classes, width = problem.channels, len(problem.classes), settings.translator_width
        self.heads, self.edges = settings.uses("segmentation-heads"), settings.uses("edges")
        torch.manual_seed(self.seed)
        inputs = self.channels * self.around
        self.generator = Generator(inputs, width, outputs=self.channels, classes=classes if self.heads else 0)
        self.sampler = Sampler(self.generator.widths)
        self.discriminator = patch_discriminator(self.channels, width)
        parts = {"generator": self.generator, "sampler": self.sampler, "discriminator": self.discriminator}
        self.segmenter = small_unet(self.channels, classes) if self.heads else None
        self.model = nn.ModuleDict(parts if self.segmenter is None else {**parts, "segmenter": self.segmenter})
        self.source = SliceDraws(problem.source, settings.translator_patch, self.around)
        self.target = SliceDraws([(image, None) for image in problem.target], settings.translator_patch, self.around)

    def players(self) -> list[Player]:
        """The discriminator, and all that translates."""
        learners = [name for name in self.model if name != "discriminator"]
        return [
            Player("discriminator", self.discriminate, ["discriminator"], GAN),
            Player("generator", self.translate, learners, GAN),
        ]

    def discriminate(self, _net: Any, step: int) -> Tensor:
        """Real target slices against translated ones."""
        x, _mask, y = self._draw(step)
        with torch.no_grad():
            fake = self.generator(x)
        return told_apart(self.discriminator(_middle(y, self.channels)), self.discriminator(fake))

    def translate(self, _net: Any, step: int) -> dict[str, Tensor]:
        """Look like the target, keep what each place shows, and with heads what it is."""
        x, mask, y = self._draw(step)
        fake = self.generator(x)
        losses = {
            "gan": fooled(self.discriminator(fake)),
            "contrast": 0.5 * (self._contrast(x, fake, step) + self._contrast(y, self.generator(y), step)),
        }
        if self.edges:
            losses["edges"] = edge_loss(_middle(x, self.channels), fake)
        if self.segmenter is not None:
            losses["segment source"] = 0.5 * dice_ce(self.generator.segment(x), mask)
            late = float(step >= LATE * self.steps)  # before, the fake shows nothing yet
            losses["segment fake"] = 0.5 * late * dice_ce(self.segmenter(fake), mask)
        return losses

    def _draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Source slices with their masks, and target slices."""
        x, mask = self.source.batch((self.seed, 31, step), BATCH)
        return x, mask, self.target.batch((self.seed, 32, step), BATCH)[0]

    def _contrast(self, image: Tensor, other: Tensor, step: int) -> Tensor:
        """Patches of one place belong together, before and after the translation."""
        before, after = self.generator.taps(image), self.generator.taps(_repeat(other, self.around))
        chance = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        places = [torch.randint(tap[0, 0].numel(), (POSITIONS,), generator=chance) for tap in before]
        return patch_nce(self.sampler(after, places), self.sampler(before, places))


def _middle(x: Tensor, channels: int) -> Tensor:
    """The slice itself among its neighbours."""
    first = (x.shape[1] // channels // 2) * channels
    return x[:, first : first + channels]


def _repeat(x: Tensor, around: int) -> Tensor:
    return x.repeat(1, around, 1, 1) if around > 1 else x
