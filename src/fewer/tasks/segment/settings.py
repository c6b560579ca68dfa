"""Everything that a training can be told, with defaults; the same names in Python, TOML and on the command line."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from fewer.training.settings import LoopSettings

__all__ = ["TrainSettings"]


class TrainSettings(LoopSettings):
    """Settings of a training run.

    Attributes
    ----------
    network
        ``unet``, ``dynunet``, ``segresnet``, ``mednext``, ``attention-unet``, ``basic-unet`` (all of MONAI), or
        ``path.py:function``, which returns a module from ``(batch, channels, *space)`` to ``(batch, classes, *space)``.
    width, levels
        Channels of the first level, which double at every further level; number of levels.
    dropout
        Of networks that have it.
    loss
        ``dice-ce``, ``dice-focal``, ``dice``, ``tversky`` or ``ce``.
    deep_supervision
        Weights of the loss from the full resolution to the coarsest, for networks with several outputs; one number n
        stands for n outputs with halving weights. None: the full resolution only.
    patch
        Voxels along each axis of what the network sees at once; None fits it to the data and ``patch_voxels``.
    patch_voxels
        Most voxels of a patch that is fitted: 65536 are 256 x 256, or 40 x 40 x 40.
    spacing
        Millimetres per voxel that everything is brought to; ``auto`` takes the median where the cases differ by more
        than 5 %; ``native`` never resamples.
    normalise
        ``zscore`` (each image and channel by itself), ``global`` (mean and deviation of the training set), ``ct``
        (clipped to the foreground's percentiles 0.5 and 99.5, then global), ``none``; ``auto``: ``ct`` for channels of
        that name, ``global`` for 8-bit colours, else ``zscore``.
    batch, steps
        Patches per step; steps.
    learning_rate, weight_decay, optimiser
        Of ``adamw`` or ``sgd`` (Nesterov, momentum 0.99); the rate falls to 0 as (1 - step / steps)^0.9.
    foreground
        Share of patches that are centred on a voxel of a class that is not background.
    augment
        ``none``, ``light`` (flips, quarter turns, brightness) or ``full`` (rotation, scale, blur and noise as well).
    every
        Steps between validations, each of which leaves a point to resume from.
    fold, folds
        Which part validates: of ``splits_final.json``, else of a seeded split; fold -1 trains on all cases.
    warm_up, warm_up_steps, warm_up_transfer
        Self-supervised training before: ``restoration``, ``contrastive`` or ``none``; its steps; whether ``all``
        layers but the output are kept, or the ``encoder`` alone.
    init
        A run folder whose weights are the start, or the ``warm-up`` folder of ``fewer select --features warm-up``.
    precision
        ``no``, ``bf16`` or ``fp16`` (mixed).
    cache
        GiB of prepared cases held in memory; further ones are read again when they are needed.
    device
        ``cpu``, ``cuda`` or ``auto``.
    seed
        Of every random choice.
    """

    TEXT: ClassVar[tuple[str, ...]] = ("patch", "spacing", "deep_supervision")
    """Settings that may be written as text with commas."""

    network: str = "unet"
    width: int = Field(default=16, ge=1)
    levels: int = Field(default=4, ge=2, le=7)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    loss: Literal["dice-ce", "dice-focal", "dice", "tversky", "ce"] = "dice-ce"
    deep_supervision: int | tuple[float, ...] | None = None
    patch: tuple[int, ...] | None = None
    patch_voxels: int = Field(default=65536, ge=64)
    spacing: Literal["auto", "native"] | tuple[float, ...] = "auto"
    normalise: Literal["auto", "zscore", "global", "ct", "none"] = "auto"
    foreground: float = Field(default=0.33, ge=0, le=1)
    augment: Literal["none", "light", "full"] = "light"
    fold: int = Field(default=0, ge=-1)
    folds: int = Field(default=5, ge=2)
    warm_up: Literal["none", "restoration", "contrastive"] = "none"
    warm_up_steps: int = Field(default=300, ge=1)
    warm_up_transfer: Literal["all", "encoder"] = "all"
    init: str | None = None
    cache: float = Field(default=2.0, ge=0)

    @field_validator("patch", "spacing", "deep_supervision", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Read ``128,128`` as it is written in flags and variables."""
        if not isinstance(value, str) or value in ("auto", "native"):
            return value
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            raise ValueError("write numbers with commas, for example 128,128") from None
        whole = info.field_name != "spacing" and all(number.is_integer() for number in numbers)
        if info.field_name == "deep_supervision" and len(numbers) == 1 and whole:
            return int(numbers[0])
        return tuple(int(number) if whole and info.field_name == "patch" else number for number in numbers)

    @field_validator("deep_supervision")
    @classmethod
    def _scales(cls, value: Any) -> Any:
        if isinstance(value, int) and not 1 <= value <= 6:
            raise ValueError("from 1 to 6 outputs can be supervised")
        if isinstance(value, tuple) and (not value or min(value) < 0 or sum(value) <= 0):
            raise ValueError("weights must not be negative, and not all 0")
        return value

    @field_validator("patch", "spacing")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, tuple) and (len(value) not in (2, 3) or min(value) <= 0):
            raise ValueError("two or three positive numbers are needed, one per axis")
        return value

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.init is not None and self.warm_up != "none":
            raise ValueError("a training starts from init or from a warm-up, not from both")
        return self

    @property
    def scale_weights(self) -> tuple[float, ...]:
        """Weights of the outputs, full resolution first, adding up to 1.

        Examples
        --------
        >>> TrainSettings(deep_supervision=2).scale_weights
        (0.6666666666666666, 0.3333333333333333)
        """
        wanted = self.deep_supervision
        if wanted is None:
            return (1.0,)
        weights = tuple(0.5**i for i in range(wanted)) if isinstance(wanted, int) else wanted
        return tuple(weight / sum(weights) for weight in weights)
