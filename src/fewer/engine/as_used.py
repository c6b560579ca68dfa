"""A model as it will run: what a runtime or a kernel rounds on the way counts where plans are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from fewer.core.option import Option
from fewer.cost.subjects import runs_as
from fewer.engine.deploy import measured_here
from fewer.engine.runtime_deploy import in_runtime
from fewer.engine.runtimes import Chosen, deploy_example
from fewer.engine.sense import Sensed, shown_ranges
from fewer.engine.work import Work
from fewer.kernels.accelerate import accelerate
from fewer.models.layers import Layer
from fewer.quantize.activations import rounding_inputs
from fewer.quantize.qdq import InputRange, rounding_to_range
from fewer.runtimes.names import EXPORTED

__all__ = ["InputRounding", "as_used", "input_rounding", "runs_elsewhere"]


@dataclass(frozen=True)
class InputRounding:
    """How layers round their inputs, by the precision that a plan gives them.

    Attributes
    ----------
    ranges
        Of the layers' inputs, where int8 has one range for a whole tensor; empty where each token has its own.
    """

    ranges: Mapping[str, InputRange] = field(default_factory=dict)

    @contextmanager
    def on(self, layers: Mapping[str, Layer], precisions: Mapping[str, str]) -> Iterator[None]:
        """Round the inputs of some layers inside of a ``with`` block.

        Examples
        --------
        >>> from fewer.core.unit import Unit
        >>> net = nn.Linear(2, 1)
        >>> with InputRounding().on({"": Layer(Unit("", "linear", (1, 2)), (net,))}, {"": "int8"}):
        ...     len(net._forward_pre_hooks)
        1
        """
        with ExitStack() as stack:
            for name, precision in precisions.items():
                static = self.ranges.get(name) if precision == "int8" else None
                if static is not None:
                    stack.enter_context(rounding_to_range(layers[name].users, static))
                elif precision in ("bf16", "int8"):
                    stack.enter_context(rounding_inputs(layers[name].users, precision))
            yield


def input_rounding(work: Work) -> InputRounding | None:
    """How the layers of a plan in time round their inputs; None where nothing is rounded but weights."""
    prepared, settings = work.prepared, work.settings
    if "latency" not in settings.measure or not {"bf16", "int8"} & set(settings.precisions):
        return None
    if not (settings.runtime in EXPORTED and "int8" in settings.precisions):
        return InputRounding()
    if "input ranges" not in prepared.shared:  # several plans are compared
        prepared.shared["input ranges"] = shown_ranges(work, prepared.model, list(prepared.layers))
    return InputRounding(prepared.shared["input ranges"])


def runs_elsewhere(work: Work, sensed: Sensed) -> bool:
    """Whether plans are made for what they take on this machine, in a runtime or on kernels."""
    return "latency" in work.settings.measure and measured_here(sensed.curves)


def as_used(work: Work, model: nn.Module, masks: Mapping[str, Tensor], options: Mapping[str, Option]) -> nn.Module:
    """A compressed model in the runtime that its plan was made for, or on this package's kernels.

    MobileNetV2 with weights in bf16 has an error of 0.00007 in torch, and of 0.0015 in OpenVINO, whose products are in
    bf16 too (32 photos). So a plan that loses more in torch may be the better one where it is used.

    Parameters
    ----------
    work
        The original, and how it will be used.
    model, masks
        Compressed, with what was removed as zeros, or removed for real.
    options
        Of each unit; give the precisions.

    Returns
    -------
    nn.Module
        The model itself where kernels of this package round nothing.

    Raises
    ------
    FewerError
        When it cannot be exported or run there.
    """
    chosen: Chosen | None = work.prepared.shared.get("runtime")
    precisions = {name: runs_as(option.precision) for name, option in options.items()}
    if chosen is not None and chosen.runtime in EXPORTED:
        return in_runtime(work, chosen, model, precisions)[0]
    if set(precisions.values()) <= {"fp32"}:
        return model
    kept = {name: mask for name, mask in masks.items() if options[name].sparsity > 0 and not options[name].removes}
    return accelerate(model, kept, example=deploy_example(work), precision=precisions, budget_ms=20.0)[0]
