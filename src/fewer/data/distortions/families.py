"""The table of distortions: 25 families after KADID-10k, each with five severities and its place in a camera.

KADID-10k (Lin et al., 2019) names the families; the operations and the amounts are ours, so scores on these images
say nothing of KADID-10k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fewer.core.methods import Method, MethodTable
from fewer.data.distortions import colours, damage, optics, sensor

__all__ = ["FAMILIES", "STAGES", "Distort", "Family"]

Distort = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""Pixels float32 (height, width, 3) in 0..1, severity 1 to 5, random numbers -> pixels of the same shape."""

STAGES = ("light", "lens", "sensor", "denoising", "tone", "sharpening", "size", "compression", "transmission")
"""The order in which a camera and what comes after it make them."""

_KADID = "after KADID-10k (QoMEX 2019)"


@dataclass(frozen=True)
class Family(Method[Distort]):
    """One family.

    Attributes
    ----------
    stage
        One of :data:`STAGES`.
    aspect
        The aspect of :mod:`fewer.study.vocabulary` that suffers.
    word
        What a person calls the defect.
    """

    stage: str = "tone"
    aspect: str = ""
    word: str = ""


def _row(name: str, run: Distort, stage: str, aspect: str, word: str) -> Family:
    note = " ".join((run.__doc__ or "").split()).partition(". ")[0].partition(" Raises")[0].rstrip(".")
    return Family(name, run, note, _KADID, (), stage, aspect, word)


FAMILIES: MethodTable[Distort] = MethodTable(
    "distortion",
    [
        _row("brighten", optics.brighten, "light", "exposure", "overexposed"),
        _row("darken", optics.darken, "light", "exposure", "underexposed"),
        _row("mean-shift", optics.mean_shift, "light", "exposure", "washed out"),
        _row("gaussian-blur", optics.gaussian_blur, "lens", "sharpness", "blurry"),
        _row("lens-blur", optics.lens_blur, "lens", "sharpness", "out of focus"),
        _row("motion-blur", optics.motion_blur, "lens", "sharpness", "smeared"),
        _row("white-noise", sensor.white_noise, "sensor", "noise", "noisy"),
        _row("white-noise-ycc", sensor.white_noise_ycc, "sensor", "noise", "grainy"),
        _row("impulse-noise", sensor.impulse_noise, "sensor", "noise", "full of speckles"),
        _row("multiplicative-noise", sensor.multiplicative_noise, "sensor", "noise", "noisy"),
        _row("denoise", sensor.denoise, "denoising", "texture", "waxy"),
        _row("contrast", optics.contrast, "tone", "contrast", "flat"),
        _row("colour-shift", colours.colour_shift, "tone", "colour", "tinted by a colour cast"),
        _row("desaturate", colours.desaturate, "tone", "colour", "faded"),
        _row("oversaturate", colours.oversaturate, "tone", "colour", "oversaturated"),
        _row("colour-diffusion", colours.colour_diffusion, "tone", "colour", "spoilt by colour bleeding"),
        _row("colour-quantisation", colours.colour_quantisation, "tone", "compression", "posterised"),
        _row("quantisation", colours.quantisation, "tone", "compression", "full of banding"),
        _row("oversharpen", damage.oversharpen, "sharpening", "texture", "oversharpened"),
        _row("pixelate", damage.pixelate, "size", "compression", "pixelated"),
        _row("jpeg", damage.jpeg, "compression", "compression", "blocky"),
        _row("jpeg2000", damage.jpeg2000, "compression", "compression", "full of ringing"),
        _row("jitter", damage.jitter, "transmission", "integrity", "jittered"),
        _row("patches", damage.patches, "transmission", "integrity", "broken by displaced patches"),
        _row("colour-blocks", damage.colour_blocks, "transmission", "integrity", "broken by colour blocks"),
    ],
)
"""Every family by name, in camera order."""
