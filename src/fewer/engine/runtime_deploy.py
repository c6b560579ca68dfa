"""A compressed model as a file for onnxruntime or OpenVINO, in the precisions of its plan, and what it takes there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.option import Option
from fewer.cost.stopwatch import Stopwatch
from fewer.cost.subjects import runs_as
from fewer.engine.outer import with_outer
from fewer.engine.prepare import Prepared
from fewer.engine.runtime_rest import rest_precision
from fewer.engine.runtimes import Chosen, dense_run, deploy_example, free_axes, planned_graph, threads_of, undisturbed
from fewer.engine.shrink import random_cut
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.kernels.report import LayerReport
from fewer.models.running import evaluating, forms_of, put_samples_first, use_threads
from fewer.runtimes.module import RuntimeModule
from fewer.runtimes.names import RUNTIMES
from fewer.runtimes.planned import PlannedGraph, arrays_of
from fewer.runtimes.session import Session, open_session

__all__ = ["in_runtime", "lowest", "timed_in_runtime", "trial_in_runtime"]

_IMAGES = 48  # for the ranges of activations
_AGAIN = 2  # times that a surprising timing is taken again
_NAN = float("nan")


def in_runtime(
    work: Work, chosen: Chosen, model: nn.Module, precisions: Mapping[str, str]
) -> tuple[RuntimeModule, list[LayerReport]]:
    """Export a compressed model, and round activations as far as its plan says.

    Parameters
    ----------
    work
        The original, and how it will be used.
    chosen
        The runtime.
    model
        Compressed; int8 weights are rounded.
    precisions
        Of each unit.

    Raises
    ------
    FewerError
        When it cannot be exported or run.
    """
    threads, runtime = threads_of(work.settings), chosen.runtime
    names = {unit.name: (unit.name, *unit.aliases) for unit in work.prepared.matched.units}
    with evaluating(model):
        planned = PlannedGraph.of(model, names, deploy_example(work), free_axes(work))
    ranges = planned.find_ranges(runtime, precisions, range_images(work.prepared), threads)
    file = planned.file(runtime, precisions, ranges).SerializeToString()
    precision = rest_precision(work, runtime, precisions)
    session = open_session(runtime, file, threads, precision)
    kept = [set_evaluating(copied_module(model))]
    told = about(precisions, precision)
    made = RuntimeModule(
        session, planned.shapes, planned.structure, lambda: kept[0], told, file, precision, planned.free
    )
    put_samples_first(made, forms_of(model))  # it is compared with the original
    return made, [_row(name, p, planned, chosen, precision) for name, p in precisions.items()]


def range_images(prepared: Prepared) -> Tensor:
    """Calibration images from which the ranges of activations are found: some of each file, all of one shape."""
    some = prepared.calibration[:: -(-len(prepared.calibration) // _IMAGES)]
    parts = [part.batch() for part in some.batches_of_all(_IMAGES)]
    shapes = Counter(tuple(part.shape[1:]) for part in parts for _ in range(len(part)))
    usual = max(shapes, key=shapes.__getitem__)  # a file takes inputs of one size; most samples have this one
    return torch.cat([part for part in parts if tuple(part.shape[1:]) == usual])


def about(precisions: Mapping[str, str], rest: str) -> str:
    """How many layers are in which precision, for people.

    Examples
    --------
    >>> about({"a": "int8", "b": "fp32", "c": "int8"}, "fp32")
    '2 layers int8, 1 fp32'
    """
    used = [p if p == "int8" else rest for p in precisions.values()]
    counts = [(p, used.count(p)) for p in ("int8", "bf16", "fp32") if p in used]
    return ", ".join(f"{n} {'layers ' if i == 0 else ''}{p}" for i, (p, n) in enumerate(counts))


def _row(name: str, precision: str, planned: PlannedGraph, chosen: Chosen, rest: str) -> LayerReport:
    found = name in planned.layers
    used = precision if precision == "int8" and found else rest
    reason = "as planned" if used == precision else f"layers that are not int8 run in {rest} there"
    if not found:
        reason = "this layer was not found again in the exported graph"
    return LayerReport(name, "layer", RUNTIMES[chosen.runtime].label, used, 0.0, 0.0, _NAN, _NAN, reason)


def timed_in_runtime(work: Work, chosen: Chosen, session: Session, budget_ms: float = 500.0) -> tuple[float, float]:
    """Milliseconds of a file beside the dense model that ratios refer to, and the spread of the timing."""
    arrays = arrays_of(deploy_example(work))
    with use_threads(work.settings.threads), evaluating(work.prepared.model):
        runs = {
            "dense": dense_run(work, chosen.against),
            "fast": lambda: session.run(arrays),
        }
        found = Stopwatch(runtimes=True).time(runs, budget_ms=budget_ms, rounds=7, warm=True)
    dense = undisturbed(work, chosen.against, found["dense"].ratio)
    return chosen.dense_ms * found["fast"].ratio / dense, found["fast"].spread


def trial_in_runtime(
    work: Work,
    chosen: Chosen,
    options: Mapping[str, Option],
    enough: float,
    outer: Mapping[str, Any] | None = None,
) -> float:
    """Milliseconds that a plan really takes: time does not depend on weights.

    What takes longer than ``enough`` milliseconds is timed again, and the lowest counts: another job on the machine
    makes a timing longer, never shorter, and the plan would pay for it with cuts.
    """
    prepared = work.prepared
    precisions = {name: runs_as(option.precision) for name, option in options.items()}
    planned = planned_graph(work)
    if outer or any(option.removes for option in options.values()):
        twin = with_outer(random_cut(prepared.model, prepared.couplings, options), outer)
        names = {unit.name: (unit.name, *unit.aliases) for unit in prepared.matched.units}
        planned = PlannedGraph.of(set_evaluating(twin), names, deploy_example(work), images=prepared.calibration.tensor)
    file = planned.file(chosen.runtime, precisions).SerializeToString()
    precision = rest_precision(work, chosen.runtime, precisions)
    session = open_session(chosen.runtime, file, threads_of(work.settings), precision)
    return lowest(lambda: timed_in_runtime(work, chosen, session, budget_ms=300.0)[0], enough)


def lowest(measure: Callable[[], float], enough: float) -> float:
    """The lowest of up to three measurements; one that is low enough is the last.

    Examples
    --------
    >>> values = iter([3.0, 1.0, 0.5])
    >>> lowest(lambda: next(values), enough=1.2)
    1.0
    """
    found = measure()
    for _ in range(_AGAIN):
        if found <= enough:
            break
        found = min(found, measure())
    return found
