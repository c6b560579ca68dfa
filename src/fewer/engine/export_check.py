"""Whether an exported file gives its model's own output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.distortion.outputs import output_tensors
from fewer.runtimes.export import first_line

__all__ = ["EXACT", "Given", "allowed_change", "arguments_of", "change_of", "check_traced"]

Given = Tensor | tuple[Tensor, ...]
"""What a model is called with: one tensor, or one for each of its arguments."""

_SAME = 1e-3
EXACT = ("session.qdq_matmulnbits_accuracy_level", "1")
"""By default onnxruntime rounds activations beside int8 weights."""


def arguments_of(given: Given) -> tuple[Tensor, ...]:
    """Copies of what a model is called with, one for each argument: a model may write into its input.

    Examples
    --------
    >>> arguments_of(torch.zeros(1))
    (tensor([0.]),)
    """
    return tuple(x.clone() for x in (given if isinstance(given, tuple) else (given,)))


def _dtype(given: Given) -> torch.dtype:
    """Of the first input that holds floating-point numbers, or of the first one."""
    every = arguments_of(given)
    return next((x.dtype for x in every if x.is_floating_point()), every[0].dtype)


def allowed_change(example: Given) -> float:
    """The largest relative difference between a file and its model that is rounding."""
    dtype = _dtype(example)
    return max(_SAME, 8 * torch.finfo(dtype).eps) if dtype.is_floating_point else _SAME


def _changed(example: Given, change: Callable[[Tensor], Tensor]) -> Given:
    """Other numbers in those inputs that hold floating-point ones."""
    found = tuple(change(x) if x.is_floating_point() else x for x in arguments_of(example))
    return found if isinstance(example, tuple) else found[0]


def check_traced(model: nn.Module, example: Given, path: Path, why: str) -> list[str]:
    """Refuse a traced file that differs from the model on other inputs; what there is to say about one that does not.

    A trace holds what the code decided about one input. Inputs of another sign, size and noise find many such
    decisions, but not all.
    """
    generator = torch.Generator().manual_seed(1)
    noise = _changed(example, lambda x: torch.randn(x.shape, generator=generator).to(x))
    tried = (noise, *(_changed(x, lambda t, f=f: f * t) for x, f in ((example, -1), (example, 3), (noise, 0.1))))
    others = [x for x in tried if _answers(model, x)]
    refusal = f"this model cannot be exported to ONNX: {why}. "
    if not others:
        raise FewerError(
            f"{refusal}It could be traced, but a trace is to be compared with the model on other inputs, and it takes "
            "none of those that were tried"
        )
    run, unsure = _runner("onnx", _dtype(example), path)
    if run is None:
        needs = "; ".join(unsure) or "that needs onnxruntime, which is not installed"
        raise FewerError(
            f"{refusal}It could be traced, but a trace is to be compared with the model, and this is not possible "
            f"here: {needs}"
        )
    if not all(_change(run, model, [x]) < allowed_change(example) for x in others):
        raise FewerError(
            f"{refusal}A trace of it gives another output for other inputs: its code decides something from their "
            "values"
        )
    count = "1 other input" if len(others) == 1 else f"{len(others)} other inputs"
    return [
        f"torch.export refused the code ({why}), so it was traced: what it decides from values is fixed as it was for "
        f"one input. The file gave the model's own output for {count}"
    ]


def _answers(model: nn.Module, x: Given) -> bool:
    """Whether a model takes an input that nobody chose for it, and answers with finite numbers."""
    try:
        with torch.no_grad():
            return bool(output_tensors(model(*arguments_of(x)))[0].isfinite().all())
    except Exception:  # whatever its code raises about values that it does not like
        return False


def change_of(to: str, model: nn.Module, batches: Sequence[Given], path: Path) -> tuple[float | None, Sequence[str]]:
    """Length of the difference over that of the model's output, over all batches; or a sentence why nobody can say."""
    run, unsure = _runner(to, _dtype(batches[0]), path)
    return (None, unsure) if run is None else (_change(run, model, batches), unsure)


_SLIGHT = 1e-8
"""Share of the squared length of all outputs that one of them counts for at least: of zeros, rounding is no error."""


def _change(run: Callable[[Given], list[Tensor]], model: nn.Module, batches: Sequence[Given]) -> float:
    """The largest relative difference of an output, of those that are floating-point numbers."""
    changes: list[float] = []
    totals: list[float] = []
    with torch.no_grad():
        for x in batches:
            wanted, got = output_tensors(model(*arguments_of(x))), run(x)
            if len(wanted) != len(got):  # an exporter leaves out what is given twice; the first output stays
                wanted, got = wanted[:1], got[:1]
            changes = changes or [0.0] * len(wanted)
            totals = totals or [0.0] * len(wanted)
            for i, (expected, found) in enumerate(zip(wanted, got, strict=False)):
                changes[i] += float((found.double() - expected.double()).square().sum())
                totals[i] += float(expected.double().square().sum())
    least = max(1e-60, _SLIGHT * sum(totals))
    return max((change / max(total, least)) ** 0.5 for change, total in zip(changes, totals, strict=True))


def _runner(to: str, dtype: torch.dtype, path: Path) -> tuple[Callable[[Given], list[Tensor]] | None, Sequence[str]]:
    """What runs a file and gives its outputs of floating-point numbers, or why nothing here does."""
    if to != "onnx":
        program = torch.export.load(path).module()
        return lambda x: output_tensors(program(*arguments_of(x))), ()
    if find_spec("onnxruntime") is None:
        return None, ()
    if dtype == torch.bfloat16:  # numpy has no such numbers to feed it with
        return None, ["the file computes in bfloat16, which onnxruntime is not given here: its output was not compared"]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*EXACT)
    try:
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class for every code, and none above them but this one
        kind = str(dtype).removeprefix("torch.")
        return None, [
            f"onnxruntime {onnxruntime.__version__} cannot run this {kind} file: its output was not compared "
            f"({first_line(error)})"
        ]
    names = [one.name for one in session.get_inputs()]

    def run(x: Given) -> list[Tensor]:
        fed = {name: one.numpy() for name, one in zip(names, arguments_of(x), strict=False)}
        found = [torch.from_numpy(np.asarray(array)) for array in session.run(None, fed)]
        return [tensor for tensor in found if tensor.is_floating_point()]

    return run, ()
