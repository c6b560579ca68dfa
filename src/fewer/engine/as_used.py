"""A model as it will run: what a runtime or a kernel rounds on the way counts where plans are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fewer.core.curve import CurveSet
from fewer.core.option import Option
from fewer.cost.subjects import runs_as
from fewer.engine.deploy import measured_here
from fewer.engine.runtime_deploy import in_runtime
from fewer.engine.runtimes import Chosen, deploy_example
from fewer.engine.sense import Sensed, shown_ranges
from fewer.engine.work import Work
from fewer.kernels.accelerate import accelerate
from fewer.kernels.copies import shared_copy
from fewer.models.layers import Layer
from fewer.quantize.activations import round_input
from fewer.quantize.qdq import InputRange, round_to_range
from fewer.runtimes.names import EXPORTED

__all__ = ["InputRounding", "as_used", "input_rounding", "model_in_use", "runs_elsewhere"]


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
        handles = []
        try:
            for name, precision in precisions.items():
                handles += [self._hook(name, user, precision) for user in layers[name].users]
            yield
        finally:
            for handle in handles:
                if handle is not None:
                    handle.remove()

    def copy(
        self, model: nn.Module, precisions: Mapping[str, str], aliases: Mapping[str, tuple[str, ...]]
    ) -> nn.Module:
        """A model with the same weights whose layers round their inputs, in whatever they are called.

        Parameters
        ----------
        model
            Left as it is; its layers may have lost channels.
        precisions
            Of units, as kernels run them.
        aliases
            Other layers that hold the weight of a unit.

        Examples
        --------
        >>> net = nn.Sequential(nn.Linear(2, 1))
        >>> twin = InputRounding().copy(net, {"0": "int8"}, {})
        >>> twin[0].weight is net[0].weight, len(twin[0]._forward_pre_hooks), len(net[0]._forward_pre_hooks)
        (True, 1, 0)
        """
        twin = shared_copy(model)
        for name, precision in precisions.items():
            for user in (name, *aliases.get(name, ())):
                self._hook(name, twin.get_submodule(user), precision)
        return twin

    def _hook(self, name: str, module: nn.Module, precision: str) -> RemovableHandle | None:
        static = self.ranges.get(name) if precision == "int8" else None
        if static is not None:
            return round_to_range(module, static)
        return round_input(module, precision) if precision in ("bf16", "int8") else None


def input_rounding(work: Work) -> InputRounding | None:
    """How the layers of a plan in time, energy or cycles round their inputs; None where nothing but weights is rounded.

    What an int8 layer is said to take is what products of integers take, whether it was timed or modelled.
    """
    prepared, settings = work.prepared, work.settings
    kinds = {runs_as(precision) for precision in settings.precisions}
    if not settings.measure or not {"bf16", "int8"} & kinds:
        return None
    if not (settings.runtime in EXPORTED and "int8" in kinds):
        return InputRounding()
    if "input ranges" not in prepared.shared:  # several plans are compared
        prepared.shared["input ranges"] = shown_ranges(work, prepared.model, list(prepared.layers))
    return InputRounding(prepared.shared["input ranges"])


def runs_elsewhere(work: Work, sensed: Sensed) -> bool:
    """Whether a model gives other answers where it will be used than in torch: in a runtime, or on kernels."""
    return _timed_here(work, sensed.curves) or input_rounding(work) is not None


def _timed_here(work: Work, curves: CurveSet) -> bool:
    return "latency" in work.settings.measure and measured_here(curves)


def model_in_use(
    work: Work, curves: CurveSet, model: nn.Module, masks: Mapping[str, Tensor], options: Mapping[str, Option]
) -> nn.Module:
    """A compressed model with what is rounded where it will be used.

    Where that is here, it is on its kernels or in its runtime (:func:`as_used`). On a machine that is modelled, or that
    others have timed, its layers round their inputs as their precision has it: what is priced as integers is judged as
    integers.

    Parameters
    ----------
    work
        The original, and how it will be used.
    curves
        Say whether times are of this machine.
    model, masks, options
        As for :func:`as_used`.

    Raises
    ------
    FewerError
        When it cannot be exported or run there.
    """
    if _timed_here(work, curves):
        return as_used(work, model, masks, options)
    rounding = input_rounding(work)
    precisions = {name: runs_as(option.precision) for name, option in options.items()}
    if rounding is None or set(precisions.values()) <= {"fp32"}:
        return model
    return rounding.copy(model, precisions, {u.name: u.aliases for u in work.prepared.matched.units})


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
