"""Settings of an adaptation of a segmentation: those of a training, with other defaults, and those of the method."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fewer.adaptation.settings import AdaptationSettings
from fewer.tasks.segment.settings import TrainSettings

__all__ = ["UNUSED", "AdaptSettings"]

UNUSED = {
    "fold": "the seed draws who judges",
    "folds": "the seed draws who judges",
    "warm_up": "warm a network up first, with fewer select --features warm-up, and give its folder as --init",
    "warm_up_steps": "warm a network up first, with fewer select --features warm-up, and give its folder as --init",
    "cache": "all images stay in memory",
}
"""Settings of a training that an adaptation has no use for, and what holds in their place."""

_GROUP: dict[str, Any] = {"group": "Adaptation"}


class AdaptSettings(AdaptationSettings, TrainSettings):
    """Settings of ``fewer adapt``.

    Examples
    --------
    >>> AdaptSettings().method, AdaptSettings().of_method().steps
    ('ours', 3200)
    >>> AdaptSettings(method="ms-mt", levels=4).of_method().scale_weights
    (0.5, 0.4, 0.1)
    """

    network: str = Field(
        default="dynunet",
        json_schema_extra={"group": "Network"},
        description="dynunet (its norm, InstanceNorm, carries over between domains better than BatchNorm), or another "
        "of fewer list networks.",
    )
    batch: int = Field(
        default=4, ge=1, description="Samples per step; on few scans, many small steps learn more than few large ones."
    )
    steps: int = Field(
        default=1600,
        ge=1,
        description="Steps of all networks and stages together, without those of a translator; "
        "3200 for the default method where nothing is given, since it trains several networks.",
    )
    width: int = Field(
        default=8,
        ge=1,
        json_schema_extra={"group": "Network"},
        description="Channels of the first level; they double at every further one.",
    )
    learning_rate: float = Field(default=4e-3, gt=0, description="Rate after its warm-up.")
    rate_warm_up: float = Field(default=0.1, ge=0, lt=1, description="Share of the training in which the rate rises.")
    every: int = Field(default=400, ge=1, description="Steps between looks at the choice, which leave a checkpoint.")
    normalise: Literal["auto", "zscore", "inside", "global", "ct", "none"] = Field(
        default="inside",
        json_schema_extra={"group": "Images"},
        description="As in fewer train; inside (each image by itself, without the air around) suits both domains.",
    )
    patch_voxels: int = Field(
        default=16384,
        ge=64,
        json_schema_extra={"group": "Images"},
        description="Most voxels of a patch that is fitted; 16384 are 128 x 128, or 25 x 25 x 25.",
    )
    augment: Literal["auto", "none", "upright", "light", "full"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="auto",
        json_schema_extra={"group": "Images"},
        description="As in fewer train; auto: upright for images with a spacing, which are scans that lie alike, else "
        "light.",
    )
    init: str | None = Field(
        default=None,
        json_schema_extra={"group": "How it starts"},
        description="A run folder of fewer train or fewer adapt, or the warm-up folder of fewer select --features "
        "warm-up, whose weights every network starts from; random by default.",
    )
    source_list: str | None = Field(
        default=None,
        json_schema_extra=_GROUP,
        description="A file of case names, one a line or the queue.csv of fewer select; the first --source-labels of "
        "them keep their masks. Without it they are drawn by the seed.",
    )

    def unused(self) -> list[str]:
        """What was asked for that means nothing in an adaptation, in words.

        Examples
        --------
        >>> AdaptSettings(fold=1).unused()
        ['fold (the seed draws who judges)']
        """
        default = type(self).model_fields
        return [f"{name} ({why})" for name, why in UNUSED.items() if getattr(self, name) != default[name].default]

    def of_method(self) -> AdaptSettings:
        """The settings with what depends on the method, where a user has not said otherwise.

        The default method gets more steps, since it trains several networks; and MS-MT supervises several outputs,
        where the network can have them.
        """
        if self.method == "ours" and self.uses("choice") and "steps" not in self.model_fields_set:
            return self.model_copy(update={"steps": 2 * self.steps})
        if self.method != "ms-mt" or self.network != "dynunet" or self.deep_supervision is not None:
            return self
        if not (self.uses("scales") or self.uses("scale-consistency")):
            return self
        weights = (0.5, 0.4, 0.05, 0.05)[: self.levels - 1]
        if len(weights) == 3:
            weights = (0.5, 0.4, 0.1)
        return self.model_copy(update={"deep_supervision": weights}) if len(weights) > 1 else self
