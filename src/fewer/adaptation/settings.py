"""What an adaptation can be told beside the settings of its task, and the modules that can be switched off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from fewer.core.errors import near_match
from fewer.core.strict import StrictSettings

__all__ = ["MODULES", "MODULES_OF", "AdaptationSettings", "without_effect"]

MODULES = {
    "curves": "random intensity curves on labelled images",
    "translation": "a translator that gives source images the look of the target",
    "segmentation-heads": "the translator also segments: on its encoder, and on its output",
    "edges": "the translator keeps edges",
    "scales": "the loss on several resolutions of the decoder",
    "consistency": "student and mean teacher agree on target images",
    "scale-consistency": "they agree on every resolution, not on the full one alone",
    "pseudo-labels": "training on predictions of target images",
    "filter": "only plausible pseudo-labels are kept",
    "structures": "intensities of structures are changed",
    "choice": "several networks are trained, and the one whose answers are trusted most is kept",
    "warm-start": "a first stage on the source as it is, before contrasts change",
    "target-look": "source images get the grey levels that pseudo-labels of the target tell",
    "intra": "the teacher within a domain (semantic consistency)",
    "inter": "the teacher across domains (structural consistency)",
    "adversarial": "discriminators of student and teacher features at two decoder depths",
}
"""Parts of methods that ``--without`` switches off, and what each does."""

_CONTRASTS = ("warm-start", "curves", "structures", "pseudo-labels", "filter", "target-look", "consistency")
_TRANSLATOR = ("translation", "segmentation-heads", "edges")

MODULES_OF: Mapping[str, tuple[str, ...]] = {
    "ours": ("choice", *_CONTRASTS),
    "contrasts": _CONTRASTS,
    "curves": ("curves",),
    "self-training": ("pseudo-labels", "filter"),
    "mean-teacher": ("consistency",),
    "ms-mt": (
        *_TRANSLATOR, "scales", "consistency", "scale-consistency", "structures", "curves", "pseudo-labels", "filter",
    ),
    "mt-uda": ("translation", "curves", "intra", "inter"),
    "le-uda": ("translation", "curves", "intra", "inter", "adversarial"),
}  # fmt: skip
"""Modules that each method has; methods that are not named have none, since they are one module."""

GROUP: dict[str, Any] = {"group": "Adaptation"}


class AdaptationSettings(StrictSettings):
    """Settings of an adaptation.

    Examples
    --------
    >>> AdaptationSettings(without=("edges",)).uses("edges")
    False
    """

    method: str = Field(default="ours", json_schema_extra=GROUP, description="A name of fewer list adaptation.")
    without: tuple[str, ...] = Field(
        default=(),
        json_schema_extra=GROUP,
        description=f"Modules of the method that are switched off; may be repeated: {', '.join(MODULES)}; or all.",
    )
    source_labels: int | None = Field(
        default=None,
        ge=1,
        json_schema_extra=GROUP | {"shown": "all"},
        description="Number of source scans whose masks are used; the others are taken as unlabelled.",
    )
    consistency: float | None = Field(
        default=None,
        ge=0,
        json_schema_extra=GROUP | {"shown": "of the method"},
        description="Largest weight of the consistency; it ramps up over the training.",
    )
    teacher_decay: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        json_schema_extra=GROUP,
        description="Decay of the moving average that is the teacher.",
    )
    noise: float = Field(
        default=0.1, ge=0, json_schema_extra=GROUP, description="Deviation of the noise on what the teacher sees."
    )
    rounds: int = Field(default=1, ge=1, le=5, json_schema_extra=GROUP, description="Rounds of pseudo-labels.")
    structure_factors: tuple[float, float] = Field(
        default=(0.5, 1.5),
        json_schema_extra=GROUP,
        description="Lowest and highest factor that structures' intensities are multiplied by.",
    )
    curve_share: float = Field(
        default=0.5, ge=0, le=1, json_schema_extra=GROUP, description="Share of images that get another contrast."
    )
    translator_steps: int = Field(
        default=400, ge=1, json_schema_extra=GROUP, description="Steps of the training of a translator."
    )
    translator_width: int = Field(
        default=16, ge=4, json_schema_extra=GROUP, description="Channels of the translator's first level."
    )
    translator_patch: int = Field(
        default=64,
        ge=16,
        json_schema_extra=GROUP,
        description="Pixels along each side of what a translator learns from.",
    )
    translator_slices: int = Field(
        default=1,
        ge=1,
        le=7,
        json_schema_extra=GROUP,
        description="Neighbouring slices of a volume that a translator sees at once: 1 is 2-D, 3 is 2.5-D.",
    )
    adversarial: tuple[float, float] = Field(
        default=(1e-3, 2e-4),
        json_schema_extra=GROUP,
        description="Weights of the adversarial losses at the last and the penultimate decoder stage.",
    )

    @field_validator("without", "structure_factors", "adversarial", mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        """Read ``a,b`` as it is written in flags."""
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value):
            words = [word.strip() for one in value for word in one.split(",")]
            try:
                return tuple(float(word) for word in words)
            except ValueError:
                return tuple(words)
        return value

    @field_validator("without")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in (*MODULES, "all"):
                raise ValueError(f"unknown module {name!r}{near_match(name, (*MODULES, 'all'))}")
        return value

    @field_validator("structure_factors")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1]:
            raise ValueError("the lowest factor stands before the highest, and none is negative")
        return value

    @field_validator("adversarial")
    @classmethod
    def _not_negative(cls, value: tuple[float, float]) -> tuple[float, float]:
        if min(value) < 0:
            raise ValueError("weights must not be negative")
        return value

    def uses(self, module: str) -> bool:
        """Whether a module is not switched off."""
        return module not in self.without and "all" not in self.without


def without_effect(settings: AdaptationSettings) -> list[str]:
    """Modules that are switched off although the method has none of them.

    Examples
    --------
    >>> without_effect(AdaptationSettings(method="curves", without=("curves", "edges")))
    ['edges']
    """
    return [name for name in settings.without if name not in (*MODULES_OF.get(settings.method, ()), "all")]
