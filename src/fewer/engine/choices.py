"""The settings of a compression as keyword arguments, for editors and type checkers; the model says what they mean.

``fewer.compress(net, images, "weights=50%", pattern="block:16x4")`` is checked by
:class:`fewer.engine.settings.Settings` when it runs, and by these types when it is written. A contract test holds the
two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from fewer.core.options import RunOptions
from fewer.distortion.distance import MakeDistance
from fewer.engine.quality import QualityLike
from fewer.models.running import Forward
from fewer.models.trust import Trust
from fewer.training.callbacks import Callback

__all__ = ["Choices", "CompressOptions", "RecoverOptions", "SenseOptions"]


class Choices(TypedDict, total=False):
    """Single settings by name; see :class:`fewer.engine.settings.Settings`."""

    pattern: str
    precisions: tuple[str, ...]
    reorder: bool
    smooth: float
    measure: tuple[str, ...]
    accelerator: str | None
    tokens: bool
    pixels: Literal["auto", "on", "off"]
    approximate: str | None
    profile: str | None
    runtime: Literal["auto", "native", "onnxruntime", "openvino", "torch"]
    deploy_batch: int
    threads: int | None
    sparsities: tuple[float, ...] | None
    estimator: Literal["auto", "measured", "taylor"]
    distance: Literal["task", "plain"]
    reduction: str
    compensation: Literal["obs", "bias", "none"]
    score: Literal["obs", "magnitude", "wanda", "taylor"]
    damping: float
    correction: float
    allocator: Literal["auto", "dp", "bold", "uniform", "uniform_plus", "erk", "global_magnitude", "lamp"]
    power: float
    schedule: Literal["one-shot", "iterative"]
    rounds: int
    data_free: Literal["noise", "bn"] | None
    calibration: int
    sensing: int
    heldout: int
    crops: int | None
    search: int
    baselines: tuple[str, ...]
    additivity: int
    probes: int
    batch: int
    shards: int
    backend: Literal["serial", "thread", "process", "ray"]
    workers: int | None
    exclude: tuple[str, ...]
    seed: int
    device: str


class SenseOptions(RunOptions, Choices, total=False):
    """What :func:`fewer.sense` can be told beside model, images and folder.

    Attributes
    ----------
    forward
        ``forward(model, batch)``, for models that are not called with a tensor, ``*tuple`` or ``**dictionary``.
        Samples of different length come to it as a list.
    """

    forward: Forward | None


class CompressOptions(SenseOptions, total=False):
    """What :func:`fewer.compress` can be told beside model, images, budget and folder.

    Attributes
    ----------
    distance
        How a change of the model's output is measured, where its relative square is not what matters: a function that
        makes a :class:`~fewer.distortion.distance.Distance` of the dense outputs.
    """

    distance: MakeDistance | None


class RecoverOptions(RunOptions, total=False):
    """What :func:`fewer.recover` can be told beside run, time and folder.

    The last seven are fields of :class:`fewer.distillation.recover.RecoverySettings`.
    """

    steps: int | None
    views: int | None
    seed: int | None
    device: str | None
    forward: Forward | None
    quality: QualityLike
    trust: Trust
    callbacks: Sequence[Callback]
    batch: int
    learning_rate: float
    blocks_first: float
    block_weight: float
    validations: int
    bf16: bool
    method: str | None
