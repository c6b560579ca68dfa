"""Everything that a run can be told, with defaults; the same names in Python, TOML and on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from fewer.core.errors import FewerError, near_match
from fewer.core.precision import KERNEL_PRECISIONS
from fewer.core.strict import StrictSettings
from fewer.core.toml import read_toml
from fewer.presets import preset_values

MEASURED = ("latency", "energy", "cycles")
"""Metrics that depend on the device."""

SMALL_PRECISIONS = ("fp32", "int8")
"""What a budget in bytes is planned with, unless precisions are given."""

FAST_PATTERNS, FAST_PRECISIONS = "block:16x4,block:16x1,block:16x16", KERNEL_PRECISIONS


class Settings(StrictSettings):
    """Settings of a compression. Every field has a ``description``; flags, files and docs follow from it.

    Examples
    --------
    >>> Settings(pattern="block:16x4").calibration
    128
    >>> Settings.model_fields["probes"].description
    'Random directions per image of the Taylor estimator'
    """

    model_config = ConfigDict(validate_default=True)

    pattern: str = Field(
        default="unstructured",
        description="unstructured, block:16x4, 2:4, nm:*:16, columns; several with commas; blocks for time",
        json_schema_extra={"group": "What may go"},
    )
    precisions: tuple[str, ...] = Field(
        default=("fp32",),
        description="Of fp32, bf16, int8, int4 those the plan may choose from; the first three for budgets in time",
        json_schema_extra={"group": "What may go", "shown": "fp32"},
    )
    reorder: bool = Field(
        default=False,
        description="Put inner channels in an order in which blocks fall where they hurt less; the output stays",
        json_schema_extra={"group": "How the rest is repaired"},
    )
    smooth: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="How far ranges of int8 activations are evened out, in plans for time or energy; 0 is off",
        json_schema_extra={"group": "How the rest is repaired"},
    )
    measure: tuple[str, ...] = Field(
        default=(),
        description="latency, energy: what options cost on this machine; a budget in one of them measures it by itself",
        json_schema_extra={"group": "How the budget is spent"},
    )
    accelerator: str | None = Field(
        default=None,
        description="Machine for cycles and energy: edge-npu, datacentre, eyeriss-like, vita-like or a TOML file",
        json_schema_extra={"group": "How the budget is spent", "shown": "edge-npu"},
    )
    tokens: bool = Field(
        default=False,
        description="Also offer to merge alike tokens between the blocks of a vision transformer",
        json_schema_extra={"group": "What may go"},
    )
    pixels: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Also offer smaller images or fewer frames inside: on, off, or auto (for time, FLOPs, energy)",
        json_schema_extra={"group": "What may go"},
    )
    approximate: str | None = Field(
        default=None,
        description="Integer softmax, GELU, SiLU and norms (simulated): best, auto (best, where there are any), "
        "i-bert, i-vit, fq-vit or energy=0.7x",
        json_schema_extra={"group": "What may go", "shown": "none"},
    )
    profile: str | None = Field(
        default=None,
        description="A file of fewer profile: plan for that device",
        json_schema_extra={"group": "How the budget is spent", "shown": "this machine"},
    )
    runtime: Literal["auto", "native", "onnxruntime", "openvino", "torch"] = Field(
        default="auto",
        description="What will run the model, for latency; auto: the fastest that is installed",
        json_schema_extra={"group": "How the budget is spent"},
    )
    deploy_batch: int = Field(
        default=1,
        ge=1,
        description="Images at once when the model is used",
        json_schema_extra={"group": "How the budget is spent"},
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads when the model is used",
        json_schema_extra={"group": "How the budget is spent", "shown": "those of torch"},
    )
    sparsities: tuple[float, ...] | None = Field(
        default=None,
        description="Shares that each layer may lose, for example 0.3,0.5,0.9; none: precisions alone",
        json_schema_extra={"group": "What may go", "shown": "0.1 to 0.9 in steps of 0.1, and 0.95"},
    )
    estimator: Literal["auto", "measured", "taylor"] = Field(
        default="auto",
        description="taylor (few backward passes), measured (a forward pass per option) or auto (measured where cheap)",
        json_schema_extra={"group": "How distortion is measured"},
    )
    distance: Literal["task", "plain"] = Field(
        default="task",
        description="task (what a change is worth to the model's task) or plain (squared differences as they are)",
        json_schema_extra={"group": "How distortion is measured"},
    )
    reduction: str = Field(
        default="mean",
        description="Over images: mean, max (worst case) or cvar:0.1 (worst tenth)",
        json_schema_extra={"group": "How distortion is measured"},
    )
    compensation: Literal["obs", "bias", "none"] = Field(
        default="obs",
        description="obs (update the weights that stay), bias or none",
        json_schema_extra={"group": "How the rest is repaired"},
    )
    score: Literal["obs", "magnitude", "wanda", "taylor"] = Field(
        default="obs",
        description="What goes first inside a layer: obs, magnitude, wanda or taylor",
        json_schema_extra={"group": "How the rest is repaired"},
    )
    damping: float = Field(
        default=0.03,
        gt=0,
        description="Ridge of the least-squares repair, relative to the mean curvature",
        json_schema_extra={"group": "How the rest is repaired"},
    )
    correction: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="0 to 1: how much a layer makes up for the cuts before it",
        json_schema_extra={"group": "How the rest is repaired"},
    )
    allocator: Literal["auto", "dp", "bold", "uniform", "uniform_plus", "erk", "global_magnitude", "lamp"] = Field(
        default="auto",
        description="auto, dp (exact), bold (dp without a charge), uniform, uniform_plus, erk, lamp, global_magnitude",
        json_schema_extra={"group": "How the budget is spent"},
    )
    power: float = Field(
        default=0.0,
        ge=0,
        description="Weight of a power term beside the distortion; 1 makes it as steep as the distortion",
        json_schema_extra={"group": "How the budget is spent"},
    )
    schedule: Literal["one-shot", "iterative"] = Field(
        default="one-shot",
        description="one-shot, or iterative: reach the budget in rounds",
        json_schema_extra={"group": "How the budget is spent"},
    )
    rounds: int = Field(
        default=4,
        ge=1,
        description="Rounds of the iterative schedule",
        json_schema_extra={"group": "How the budget is spent"},
    )
    data_free: Literal["noise", "bn"] | None = Field(
        default=None,
        description="noise or bn: sense without images",
        json_schema_extra={"group": "How distortion is measured", "shown": "none"},
    )
    calibration: int = Field(
        default=128, ge=1, description="Images for the repair", json_schema_extra={"group": "Images"}
    )
    sensing: int = Field(
        default=16,
        ge=1,
        description="Images for measuring distortion, at most a third of --calibration",
        json_schema_extra={"group": "Images"},
    )
    heldout: int = Field(
        default=32,
        ge=1,
        description="Images kept apart for the report; half as many more decide between models",
        json_schema_extra={"group": "Images"},
    )
    crops: int | None = Field(
        default=None,
        ge=0,
        description="Random crops per file; 0 takes each centre once",
        json_schema_extra={"group": "Images", "shown": "as many as fill the wanted number"},
    )
    search: int = Field(
        default=0,
        ge=0,
        description="Evaluations of the local search after planning; 0 is off",
        json_schema_extra={"group": "How the budget is spent"},
    )
    baselines: tuple[str, ...] = Field(
        default=("uniform", "lamp"),
        description="At the same budget: uniform, erk, lamp, global_magnitude, sparsegpt, wanda, presets; or none",
        json_schema_extra={"group": "How distortion is measured", "shown": "uniform,lamp"},
    )
    additivity: int = Field(
        default=12,
        ge=0,
        description="Random plans on which the prediction is checked",
        json_schema_extra={"group": "How distortion is measured"},
    )
    probes: int = Field(
        default=4,
        ge=1,
        description="Random directions per image of the Taylor estimator",
        json_schema_extra={"group": "How distortion is measured"},
    )
    batch: int = Field(
        default=4,
        ge=1,
        description="Images per forward pass in sensing",
        json_schema_extra={"group": "How the work is done"},
    )
    shards: int = Field(
        default=1,
        ge=1,
        description="Parts of the sensing images that are separate tasks",
        json_schema_extra={"group": "How the work is done"},
    )
    backend: Literal["serial", "thread", "process", "ray"] = Field(
        default="thread",
        description="serial, thread, process or ray",
        json_schema_extra={"group": "How the work is done"},
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Tasks at once",
        json_schema_extra={"group": "How the work is done", "shown": "one per core"},
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Layers to leave alone, for example head or 'blocks.0.*'; may be repeated",
        json_schema_extra={"group": "What may go"},
    )
    seed: int = Field(default=0, ge=0, description="Of every random choice", json_schema_extra={"group": "Every verb"})
    device: str = Field(
        default="cpu",
        description="Where tensors live, such as cpu or cuda; or a machine on paper to plan for, such as edge-npu",
        json_schema_extra={"group": "Every verb"},
    )

    @field_validator("sparsities", "exclude", "baselines", "precisions", "measure", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("baselines")
    @classmethod
    def _baselines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from fewer.compensate.published import PUBLISHED
        from fewer.core.allocation.baselines import BASELINES
        from fewer.presets import preset_names

        rules = (*BASELINES, *PUBLISHED)
        known = [*rules, *preset_names()]
        for name in value:
            if name not in known:
                raise ValueError(f"there is no baseline '{name}'{near_match(name, known)}")
            if name not in rules and preset_values(name).get("schedule", "one-shot") != "one-shot":
                raise ValueError(f"the preset '{name}' plans in rounds, so it is a run of its own: --preset {name}")
        return value

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.power and (self.allocator not in ("dp", "auto") or self.search):
            raise ValueError("the power term needs allocator='dp' and search=0")
        if self.tokens and self.schedule == "iterative":
            raise ValueError("tokens are merged by one-shot schedules only; leave tokens or the iterative schedule out")
        if self.accelerator is not None and (self.tokens or self.pixels == "on"):
            other = "tokens" if self.tokens else "pixels"
            raise ValueError(f"{other} are not priced for an accelerator yet; leave {other} or the accelerator out")
        if self.pixels == "on" and (self.tokens or self.schedule == "iterative"):
            other = "tokens" if self.tokens else "the iterative schedule"
            raise ValueError(f"pixels and {other} do not go together; leave one of them out")
        return self

    @field_validator("approximate")
    @classmethod
    def _approximate(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from fewer.approximate.plan import check_wish  # imports torch

        return check_wish(value)

    @model_validator(mode="before")
    @classmethod
    def _machine(cls, values: Any) -> Any:
        """A machine on paper may be named as the device that is planned for; tensors then live on the processor."""
        device = values.get("device") if isinstance(values, dict) else None
        if not isinstance(device, str) or device.startswith(("cpu", "cuda")):
            return values
        from fewer.cost.accelerator.machine import machine_names

        if device not in machine_names() or values.get("accelerator") not in (None, device):
            return values
        return {**values, "device": "cpu", "accelerator": device}

    @field_validator("accelerator")
    @classmethod
    def _accelerator(cls, value: str | None) -> str | None:
        if value is not None:
            from fewer.cost.accelerator.machine import load_machine

            try:
                load_machine(value)
            except FewerError as error:  # told before a model is loaded
                raise ValueError(str(error)) from None
        return value

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
        if value and (min(value) <= 0 or max(value) > 1):
            raise ValueError("sparsities must lie above 0 and not above 1")
        return value

    def for_metrics(self, metrics: Iterable[str]) -> Settings:
        """Settings that measure what budgets in these metrics need, with the options that such budgets can use.

        Examples
        --------
        >>> Settings().for_metrics(["latency"]).precisions
        ('fp32', 'bf16', 'int8')
        >>> Settings().for_metrics(["size"]).precisions, Settings(precisions=("fp32",)).for_metrics(["size"]).precisions
        (('fp32', 'int8'), ('fp32',))
        """
        wanted = {*metrics, *self.measure}
        needed = [m for m in MEASURED if m in wanted]
        if not needed:
            if "size" in wanted and "precisions" not in self.model_fields_set:
                # a byte a weight costs far less than three weights of four
                return self.model_copy(update={"precisions": SMALL_PRECISIONS})
            return self
        if self.approximate is not None and "latency" in needed:
            raise FewerError(
                "--approximate shows in plain torch what integer functions do to a model; kernels that are planned for "
                "time keep them in floating point, so leave --approximate or the budget in latency out"
            )
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
