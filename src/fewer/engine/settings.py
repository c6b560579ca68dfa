"""Everything that a run can be told, with defaults; the same names in Python, TOML and on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from fewer.core.errors import near_match
from fewer.core.strict import StrictSettings
from fewer.core.toml import read_toml
from fewer.presets import preset_values

MEASURED = ("latency", "energy")
"""Metrics that depend on the device."""

FAST_PATTERNS, FAST_PRECISIONS, RUNTIME_PATTERNS = "block:16x4,block:16x1,block:16x16", ("fp32", "bf16", "int8"), "columns"


class Settings(StrictSettings):
    """Settings of a run.

    Attributes
    ----------
    pattern
        ``unstructured``, ``block:16x4``, ``2:4``, ``nm:*:16`` (any n of 16), or ``columns`` (input channels, removed
        together with what makes them: hidden units, heads, inner channels); several with commas, and the plan
        chooses for each layer. For a budget in latency or energy the default is
        ``block:16x4,block:16x1,block:16x16``, since only blocks become faster.
    precisions
        ``fp32``, ``bf16``, ``int8`` (weights and activations), ``int4`` (weights; to save bytes). The plan chooses for
        each layer. The default is fp32, and all three that have kernels for a budget in latency or energy.
    reorder
        Whether to put the inner channels of MLPs and convolutional blocks in an order in which alike ones stand
        together, where blocks are options. The model computes the same; what it gains after the repair is small.
    smooth
        Where int8 activations are an option: how much of the range of a LayerNorm's output moves into the layers that
        read it, 0 (nothing) to 1, by powers of two, so that the dense model stays the same to the last bit.
    measure
        ``latency`` and ``energy``: what every option costs on this machine. Added by a budget that needs it.
    tokens
        Whether a plan may also merge alike tokens between the blocks of a vision transformer
        (:func:`fewer.tokens.blocks.merge_after`): what comes after a merge then works on fewer of them.
    profile
        A device profile from ``fewer profile --out``: plan for that device. By default this machine, measured once.
    runtime
        What will run the model, where latency is budgeted: ``native`` (fewer's kernels), ``onnxruntime``, ``openvino``,
        or ``auto``: whichever of those installed meets the budget here with the least harm. A share of latency is one
        of the fastest dense model of all runtimes.
    deploy_batch
        Images at once when the model is used: latency and energy are those of such a batch.
    threads
        Threads when the model is used; None takes what torch uses now.
    sparsities
        Ladder of sparsities that every unit is offered; None is 0.1 to 0.9 in steps of 0.1, and 0.95.
    estimator
        ``measured`` (forward passes from the changed layer on), ``taylor`` (random-probe gradients), or ``auto``:
        measured where that is cheap, which it is for small models.
    reduction
        Over the images: ``mean``, ``max`` or ``cvar:0.1``.
    compensation
        ``obs`` (least-squares repair), ``bias`` (bias correction and BatchNorm re-estimation) or ``none``.
    score
        What goes first inside a layer: ``obs``, ``magnitude``, ``wanda`` or ``taylor``.
    damping
        Of the least-squares repair, relative to the mean of the Hessian's diagonal.
    correction
        0 to 1: how much a layer makes up for what cuts before it did.
    allocator
        ``auto``: plans of the exact DP and of the simple rules are put together and measured, and the DP's is taken
        unless another one is clearly lower. Or one of them: ``dp``, ``uniform``, ``uniform_plus``, ``erk``,
        ``global_magnitude``, ``lamp``.
    power
        Weight of a power term beside the harm (:func:`fewer.core.allocation.power.with_power`); 0 is off, 1 makes it
        as steep as the harm. The plan then prefers to cut layers that draw much power for what they cost. For ``dp``,
        which ``auto`` then is.
    schedule, rounds
        ``one-shot``, or ``iterative``: the budget is reached in so many geometric rounds with curves sensed anew.
    data_free
        ``noise`` or ``bn`` (inputs that match BatchNorm statistics) instead of images.
    calibration, sensing, heldout
        Numbers of images: for repair, for harm (at most a third of the former; the repair whose harm is measured on
        them learns from the others), and kept apart for the report.
    crops
        Random crops per file; None takes as many as fill the wanted number of images, 0 the centre of each once.
    search
        Evaluations of local search after planning; 0 is off. What it finds is kept only if it also helps on
        calibration images that it did not see; on large models with few images it rarely does.
    baselines
        Simpler allocators that are given the same budget and the same repair, for the report; and names of presets,
        ``default`` or ``lpvit``, whose whole method is given the same budget, patterns and images.
    additivity
        Random plans on which the prediction is checked; 0 is off.
    probes
        Random directions per image of the Taylor estimator.
    batch
        Images per forward pass in sensing.
    shards, backend, workers
        Parts of the sensing images; ``serial``, ``thread``, ``process`` or ``ray``; tasks at once (None: cores).
    exclude
        Shell patterns of layers to leave alone.
    seed, device
        Of every random choice; where tensors live.

    Examples
    --------
    >>> Settings(pattern="block:16x4").calibration
    128
    """

    model_config = ConfigDict(validate_default=True)

    pattern: str = "unstructured"
    precisions: tuple[str, ...] = ("fp32",)
    reorder: bool = False
    smooth: float = Field(default=0.6, ge=0, le=1)
    measure: tuple[str, ...] = ()
    tokens: bool = False
    profile: str | None = None
    runtime: Literal["auto", "native", "onnxruntime", "openvino", "torch"] = "auto"
    deploy_batch: int = Field(default=1, ge=1)
    threads: int | None = Field(default=None, ge=1)
    sparsities: tuple[float, ...] | None = None
    estimator: Literal["auto", "measured", "taylor"] = "auto"
    reduction: str = "mean"
    compensation: Literal["obs", "bias", "none"] = "obs"
    score: Literal["obs", "magnitude", "wanda", "taylor"] = "obs"
    damping: float = Field(default=0.03, gt=0)
    correction: float = Field(default=0.5, ge=0, le=1)
    allocator: Literal["auto", "dp", "uniform", "uniform_plus", "erk", "global_magnitude", "lamp"] = "auto"
    power: float = Field(default=0.0, ge=0)
    schedule: Literal["one-shot", "iterative"] = "one-shot"
    rounds: int = Field(default=4, ge=1)
    data_free: Literal["noise", "bn"] | None = None
    calibration: int = Field(default=128, ge=1)
    sensing: int = Field(default=16, ge=1)
    heldout: int = Field(default=32, ge=1)
    crops: int | None = Field(default=None, ge=0)
    search: int = Field(default=0, ge=0)
    baselines: tuple[str, ...] = ("uniform", "erk", "lamp", "global_magnitude")
    additivity: int = Field(default=12, ge=0)
    probes: int = Field(default=4, ge=1)
    batch: int = Field(default=4, ge=1)
    shards: int = Field(default=1, ge=1)
    backend: Literal["serial", "thread", "process", "ray"] = "thread"
    workers: int | None = Field(default=None, ge=1)
    exclude: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"

    @field_validator("sparsities", "exclude", "baselines", "precisions", "measure", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("baselines")
    @classmethod
    def _baselines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from fewer.core.allocation.baselines import BASELINES
        from fewer.presets import preset_names

        known = [*BASELINES, *preset_names()]
        for name in value:
            if name not in known:
                raise ValueError(f"there is no baseline '{name}'{near_match(name, known)}")
            if name not in BASELINES and preset_values(name).get("schedule", "one-shot") != "one-shot":
                raise ValueError(f"the preset '{name}' plans in rounds, so it is a run of its own: --preset {name}")
        return value

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.power and (self.allocator not in ("dp", "auto") or self.search):
            raise ValueError("the power term needs allocator='dp' and search=0")
        if self.tokens and self.schedule == "iterative":
            raise ValueError("tokens are merged by one-shot schedules only; leave tokens or the iterative schedule out")
        return self

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        from fewer.patterns import option_grid

        option_grid(value)
        return value

    @field_validator("precisions")
    @classmethod
    def _precisions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from fewer.core.option import Option

        for precision in value:
            Option(precision=precision)
        if not value:
            raise ValueError("give at least one precision")
        return value

    @field_validator("measure")
    @classmethod
    def _measure(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for metric in value:
            if metric not in MEASURED:
                raise ValueError(f"{metric!r} cannot be measured; known are {', '.join(MEASURED)}")
        return value

    @field_validator("reduction")
    @classmethod
    def _reduction(cls, value: str) -> str:
        from fewer.distortion.outputs import reduction

        reduction(value)
        return value

    @field_validator("sparsities")
    @classmethod
    def _ladder(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (not value or min(value) <= 0 or max(value) > 1):
            raise ValueError("sparsities must lie above 0 and not above 1")
        return value

    def for_metrics(self, metrics: Iterable[str]) -> Settings:
        """Settings that measure what budgets in these metrics need, with the options that such budgets can use.

        Examples
        --------
        >>> Settings().for_metrics(["latency"]).precisions
        ('fp32', 'bf16', 'int8')
        """
        wanted = {*metrics, *self.measure}
        needed = [m for m in MEASURED if m in wanted]
        if not needed:
            return self
        changes: dict[str, Any] = {"measure": tuple(needed)}
        if "pattern" not in self.model_fields_set:
            changes["pattern"] = FAST_PATTERNS
        if "precisions" not in self.model_fields_set:
            changes["precisions"] = FAST_PRECISIONS
        return self.model_copy(update=changes)

    @classmethod
    def of_run(cls, values: Mapping[str, Any], where: str) -> Settings:
        """Settings that a run folder keeps. What an older version did not know, it did not do either.

        Examples
        --------
        >>> Settings.of_run({"seed": 3}, "run").smooth, Settings.of_run({"smooth": 0.5}, "run").smooth
        (0.0, 0.5)
        """
        return cls.of({"smooth": 0.0, "reorder": False, "runtime": "native", **values}, where)

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Settings:
        """Settings of a preset that comes with the library; ``changes`` go over it.

        Raises
        ------
        FewerError
            When there is no such preset, or a change has an unknown name or a bad value.

        Examples
        --------
        >>> Settings.from_preset("lpvit").pattern
        'block:16x16'
        """
        return cls.of(preset_values(name) | changes, f"preset {name}")

    @classmethod
    def from_toml(cls, path: str | Path, **changes: Any) -> Settings:
        """Read settings from a TOML file; ``changes`` go over it.

        Raises
        ------
        FewerError
            When the file cannot be read, is no TOML, or holds an unknown name or a bad value.
        """
        return cls.of(read_toml(path) | changes, str(path))
