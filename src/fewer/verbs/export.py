"""Export: a run's model as a file for other runtimes, checked against the model itself, and what gets lost."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError, near_match
from fewer.core.files import explain_os_error
from fewer.models.artefact import WEIGHTS, load_artefact, load_recipe

__all__ = ["FORMATS", "Exported", "export"]

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
_SAME = 1e-3


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Attributes
    ----------
    path
        The file.
    bytes
        Its size.
    difference
        Relative difference of its output from the model's on one input; None where the runtime is not installed.
    lost
        Sentences: what the file does not carry over.
    """

    path: Path
    bytes: int
    difference: float | None
    lost: list[str]


def export(
    run: str | Path,
    to: str = "onnx",
    *,
    out: str | Path | None = None,
    batch: int = 1,
    example: Tensor | None = None,
    architecture: Callable[[], nn.Module] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the compressed model of a run folder for another runtime.

    Parameters
    ----------
    run
        Run folder.
    to
        ``onnx`` (onnxruntime, OpenVINO and many more) or ``torch`` (``torch.export``).
    out
        File; by default ``model.onnx`` or ``model.pt2`` in the run folder.
    batch
        Images at once; the file takes only inputs of this size.
    example
        An input, for a run that does not know its own size.
    architecture
        As for :func:`fewer.load`.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    FewerError
        When the format is unknown, a package is missing, or the model cannot be exported; nothing is left half-written.

    Examples
    --------
    >>> import fewer
    >>> print(*fewer.export("run/", "onnx").lost, sep="\\n")  # doctest: +SKIP
    """
    if to not in FORMATS:
        raise FewerError(f"unknown format {to!r}{near_match(to, FORMATS)}")
    recipe = load_recipe(run)
    path = Path(out) if out is not None else Path(run) / f"model{FORMATS[to]}"
    if path.exists() and not overwrite:
        raise FewerError(f"{path} exists already; give another --out, or --overwrite")
    if not path.parent.is_dir():
        raise FewerError(f"cannot write {path}: the folder {path.parent} does not exist")
    if example is None:
        if recipe.preprocess is None:
            raise FewerError(f"{run} does not say what its model's input is; give example=, a tensor of its shape")
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(batch, *recipe.preprocess["input_size"], generator=generator)
    model = load_artefact(run, architecture)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{path.suffix}")
    try:
        (_onnx if to == "onnx" else _torch)(model, example, temporary)
        difference = _difference(to, model, example, temporary)
        if difference is not None and not difference < _SAME:
            raise FewerError(f"the exported model gives another output (relative difference {difference:.2g})")
        temporary.replace(path)
    except OSError as error:
        raise explain_os_error(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)
    size = path.stat().st_size
    return Exported(path, size, difference, _lost(recipe, Path(run) / WEIGHTS, size, to))


def _onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    missing = [name for name in ("onnx", "onnxscript") if not _installed(name)]
    if missing:
        raise FewerError(f"exporting to ONNX needs {' and '.join(missing)}: pip install 'fewer[deploy]'")
    big = sum(p.numel() * p.element_size() for p in model.parameters()) > 1_800_000_000
    if big:
        raise FewerError("models above 1.8 GB do not fit into one ONNX file; export to torch instead")
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(model, (example,), path, dynamo=True, external_data=False, verbose=False, optimize=True)
    except Exception as error:
        raise FewerError(f"this model cannot be exported to ONNX: {_first_line(error)}") from error


def _torch(model: nn.Module, example: Tensor, path: Path) -> None:
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(model, (example,))
            torch.export.save(program, path)
    except OSError:
        raise
    except Exception as error:
        raise FewerError(f"this model cannot be exported by torch.export: {_first_line(error)}") from error


def _difference(to: str, model: nn.Module, example: Tensor, path: Path) -> float | None:
    from fewer.distortion.outputs import output_tensors

    with torch.no_grad():
        expected = output_tensors(model(example))[0].double()
        if to == "torch":
            got = output_tensors(torch.export.load(path).module()(example))[0].double()
        elif not _installed("onnxruntime"):
            return None
        else:
            import onnxruntime

            session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            answer = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
            got = torch.from_numpy(np.asarray(answer)).double()
    return float((got - expected).norm() / expected.norm().clamp_min(1e-30))


def _lost(recipe: Any, weights: Path, size: int, to: str) -> list[str]:
    """What a reader of the file should know."""
    lost = []
    pruned = [u for u in recipe.units if u.pattern != "dense"]
    if pruned:
        lost.append(
            f"zeros of {len(pruned)} pruned layers are stored like other weights: {size / 1e6:.1f} MB instead of "
            f"{weights.stat().st_size / 1e6:.1f} MB, and other runtimes do not skip them: the file runs at dense speed"
        )
    low = sorted({u.precision for u in recipe.units} - {"fp32"})
    if low:
        lost.append(
            f"layers of {' and '.join(low)} hold their rounded values in fp32: activations are not rounded, and "
            "nothing runs faster for it; to get the planned speed use fewer.load(run, accelerated=True)"
        )
    runtime = "onnxruntime and OpenVINO" if to == "onnx" else "torch"
    lost.append(f"the input size is fixed; preprocessing of images is not part of the file ({runtime} get tensors)")
    return lost


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
