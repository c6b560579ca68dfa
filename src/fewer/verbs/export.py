"""Export: a run's model as a file for other runtimes, checked against the model itself, and what gets lost."""

from __future__ import annotations

import contextlib
import inspect
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.display import Told
from fewer.core.errors import FewerError, near_match
from fewer.core.files import explain_os_error, flush_file
from fewer.core.run import RunFolder
from fewer.data.calibration import as_calibration
from fewer.data.preprocess import Preprocess
from fewer.engine.export_check import EXACT, Given, allowed_change, arguments_of, change_of, check_traced
from fewer.engine.parts import part_of
from fewer.engine.prepare import on_device
from fewer.models.artefact import WEIGHTS, load_recipe
from fewer.models.load import load
from fewer.models.recipe import Recipe, refuse_integers
from fewer.models.running import attributes_kept, input_dtype, to_device
from fewer.models.trust import Trust
from fewer.quantize.qat import stored_ranges
from fewer.quantize.qdq import InputRange, input_ranges, with_integers
from fewer.reports.numbers import data_size
from fewer.runtimes.export import first_line, quiet, takes_any, write_onnx
from fewer.runtimes.names import EXPORTED
from fewer.tasks import reads_inputs

__all__ = ["ACTIVATIONS", "FORMATS", "Exported", "export"]

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "kernels": ".pt2", "huggingface": ""}
ACTIVATIONS = ("float", "static")
_INTEGERS = ("int8", "int4")
"""Precisions whose weights an ONNX file holds as bytes."""
_CALIBRATION, _HELDOUT = 64, 16  # images for the ranges of activations, and to measure what these cost


@dataclass(frozen=True, repr=False)
class Exported(Told):
    """What :func:`export` wrote.

    Attributes
    ----------
    path
        The file, or the folder for ``huggingface``.
    bytes
        Its size.
    difference
        Relative difference of its output from the model's: on one input, or, with ``static`` activations, on images
        that gave no range (the report's distortion is its square). None where the runtime is not installed.
    lost
        Sentences: what the file does not carry over.
    integers
        Layers that are stored as integers.
    """

    path: Path
    bytes: int
    difference: float | None
    lost: list[str]
    integers: int = 0

    def lines(self) -> list[str]:
        """Where the file is, how it was checked, and what it does not carry over."""
        lacking = find_spec("onnxruntime") is None
        how = "not checked: onnxruntime is not installed" if lacking else "not compared with the model's"
        how = how if self.difference is None else f"differs by {self.difference:.1e}"
        head = f"wrote {self.path} ({data_size(self.bytes)}); output {how}"
        return [head, "lost on the way:", *(f"- {sentence}" for sentence in self.lost)]


def export(
    run: str | Path,
    to: str = "onnx",
    *,
    out: str | Path | None = None,
    deploy_batch: int = 1,
    example: Tensor | Sequence[Tensor] | None = None,
    architecture: Callable[[], nn.Module] | None = None,
    overwrite: bool = False,
    activations: str = "float",
    images: Any = None,
    trust: Trust = False,
    device: str = "cpu",
) -> Exported:
    """Write the compressed model of a run folder for another runtime.

    Parameters
    ----------
    run
        Run folder.
    to
        ``onnx`` (onnxruntime, OpenVINO and many more), ``torch`` (``torch.export``), or ``kernels``: ``torch.export``
        with this package's kernels as operators, as :func:`fewer.load` puts them there with ``accelerated=True``. Such
        a file is small and as fast as planned; ``import fewer.kernels.ops`` before ``torch.export.load`` makes the
        operators known. ``huggingface`` is a folder with a model card, which :func:`fewer.load` reads.
    out
        File; by default ``model.onnx`` or ``model.pt2`` in the run folder. For ``huggingface`` a folder, which has no
        default.
    deploy_batch
        Images at once; the file takes only inputs of this size.
    example
        An input, for a run that does not know its own size; of a model with several arguments a tuple, a tensor each.
    architecture
        As for :func:`fewer.load`.
    overwrite
        Whether an existing file may be replaced.
    activations
        Of int8 and int4 layers in ONNX, whose weights are stored as integers in any case. ``float`` leaves them alone:
        the file gives the model's own output. ``static`` rounds them to bytes with fixed scales (QuantizeLinear and
        DequantizeLinear), so that onnxruntime and OpenVINO multiply integers.
    images
        For ``static``: a folder, files or a tensor; by default the images of the run. Those that the run held out say
        what the rounding costs. A run that was trained with inputs of few bits knows its ranges and needs none.

    trust
        As for :func:`fewer.load`.
    device
        Where a file of ``torch`` is to run, ``cpu``, ``cuda:0`` or any other of torch: its weights and constants lie
        there. ONNX files belong to no device, and ``kernels`` are those of the CPU.

    Raises
    ------
    FewerError
        When the format is unknown, a package or the images are missing, or the model cannot be exported; nothing is
        left half-written.

    Examples
    --------
    >>> import fewer
    >>> print(*fewer.export("run/", "onnx").lost, sep="\\n")  # doctest: +SKIP
    """
    _check(to, activations, device, deploy_batch)
    recipe = load_recipe(run)
    if to == "huggingface":
        return _hub(run, recipe, out, overwrite, architecture, trust)
    refuse_integers(recipe, run, "no other runtime has them; see fewer.approximate.onnx for a whole integer network")
    path = _place(run, to, out, overwrite)
    model = load(run, architecture, trust=trust)
    part = part_of(recipe.meta.get("task"), model) if example is None else None
    if part is not None:
        model, example = part.module, _batch(part.inputs[0], deploy_batch)
    elif example is None:
        _refuse_several(model)
        example = _example(run, recipe, deploy_batch)
    given = _as_taken(model, example)
    if isinstance(given, tuple) and activations != "float":
        raise FewerError("activations='static' is for models of one input; leave it out")
    there = on_device(model, device)  # tells of a device that is not here, whatever the format
    if to == "torch":
        model, given = there, to_device(given, torch.device(device))
    if to == "kernels":
        whole = given if part is None or not part.note else part.whole
        model = load(run, architecture, accelerated=True, example=whole, trust=trust)
        if part is not None and (fast := part_of(recipe.meta.get("task"), model)) is not None:
            model = fast.module
    low = [unit.name for unit in recipe.units if unit.precision in _INTEGERS] if to == "onnx" else []
    every = [*low, *_sharing(model, low)]
    known = stored_ranges(recipe.meta, every) if activations == "static" else {}
    trained = activations == "static" and images is None and 0 < len(every) == len(known)
    shown = _static_images(run, recipe, images, low, to) if activations == "static" and not trained else None
    if shown is not None and isinstance(given, Tensor):
        shown = shown[0].to(given.dtype), shown[1].to(given.dtype)
    axes = dict(part.dynamic) if part is not None and to != "kernels" and shown is None else {}
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{path.suffix}")
    try:
        integers, difference, unsure = _write(to, model, given, temporary, low, shown, known, axes)
        flush_file(temporary)
        temporary.replace(path)
    except OSError as error:
        raise explain_os_error(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)
    size = path.stat().st_size
    lost = _lost(recipe, Path(run) / WEIGHTS, size, to, axes)
    lost = [f"the file holds, {part.note}", *lost] if part is not None and part.note else lost
    lost += [*_about_integers(recipe, to, integers, shown, difference, trained), *unsure]
    return Exported(path, size, difference, lost, integers)


def _hub(
    run: str | Path,
    recipe: Recipe,
    out: str | Path | None,
    overwrite: bool,
    architecture: Callable[[], nn.Module] | None,
    trust: Trust,
) -> Exported:
    """A folder with a card; what it holds is compared with the run bit by bit, so there is no difference to tell."""
    from fewer.engine.huggingface import write_hub_folder

    if out is None:
        raise FewerError("the format huggingface is a folder of its own; say where: --out FOLDER")
    size, told = write_hub_folder(
        Path(run), Path(out), recipe, overwrite=overwrite, architecture=architecture, trust=trust
    )
    return Exported(Path(out), size, 0.0, told)


def _check(to: str, activations: str, device: str, deploy_batch: int) -> None:
    """Refuse names and sizes that are not known, and what does not go together."""
    if isinstance(deploy_batch, bool) or not isinstance(deploy_batch, int) or not 1 <= deploy_batch <= 65_536:
        raise FewerError(f"the batch of an exported file is {deploy_batch}; it must be a whole number from 1 to 65536")
    if to not in FORMATS:
        read = "; onnxruntime and OpenVINO read ONNX: --to onnx" if to in EXPORTED else near_match(to, FORMATS)
        raise FewerError(f"unknown format {to!r}{read}")
    if activations not in ACTIVATIONS:
        raise FewerError(f"unknown activations {activations!r}{near_match(activations, ACTIVATIONS)}")
    if to == "huggingface" and activations != "float":
        raise FewerError("activations='static' is for ONNX only; leave it out")
    if to == "kernels" and device != "cpu":
        raise FewerError(f"the kernels are those of the CPU, not of {device!r}: use --to torch, or leave --device out")


def _place(run: str | Path, to: str, out: str | Path | None, overwrite: bool) -> Path:
    """The file to write, if it may be written."""
    path = Path(out) if out is not None else Path(run) / f"model{FORMATS[to]}"
    RunFolder(run).refuse(path)
    if path.exists() and not overwrite:
        raise FewerError(f"{path} exists already; give another --out, or --overwrite")
    if not path.parent.is_dir():
        raise FewerError(f"cannot write {path}: the folder {path.parent} does not exist")
    return path


def _example(run: str | Path, recipe: Recipe, batch: int) -> Tensor:
    """Noise of the size that the run knows of its model's input."""
    if recipe.input_size is None:
        raise FewerError(f"{run} does not say what its model's input is; give example=, a tensor of its shape")
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, *recipe.input_size, generator=generator)


def _refuse_several(model: nn.Module) -> None:
    """Tell that nobody knows an example of a model that must be called with several arguments."""
    given = [p for p in inspect.signature(model.forward).parameters.values() if p.default is p.empty]
    names = [p.name for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(names) > 1:
        raise FewerError(
            f"the model is called with {len(names)} arguments ({', '.join(names)}), and no run knows their sizes; give "
            "example=, a tuple with a tensor for each"
        )


def _as_taken(model: nn.Module, example: Tensor | Sequence[Tensor]) -> Given:
    """Inputs in the type of the model's weights."""
    if isinstance(example, Tensor):
        return example.to(input_dtype(model, example))
    if not example or not all(isinstance(one, Tensor) for one in example):
        raise FewerError("an example is a tensor, or a tuple of tensors, one for each argument of the model")
    kind = input_dtype(model, example[0])
    return tuple(one.to(kind) if one.is_floating_point() else one for one in example)


def _batch(sample: Tensor, count: int) -> Tensor:
    """A batch of so many inputs like this one."""
    return sample.repeat(count, *[1] * (sample.ndim - 1)).contiguous()


def _write(
    to: str,
    model: nn.Module,
    example: Given,
    path: Path,
    low: Sequence[str],
    shown: tuple[Tensor, Tensor] | None,
    known: Mapping[str, InputRange],
    axes: dict[int, str],
) -> tuple[int, float | None, Sequence[str]]:
    """Write the file and compare its output with the model's.

    Gives the number of layers that hold integers, the relative difference, and what else there is to say. ``axes`` are
    those along which the file is to take any number; where the model cannot be written so, they are emptied.
    """
    traced = _onnx(model, example, path, axes) if to == "onnx" else _torch(model, example, path, axes)
    notes = check_traced(model, example, path, traced) if traced else []
    integers = 0
    if low:
        ranges = dict(known) or None
        if shown is not None:
            every = [*low, *_sharing(model, low)]
            found = input_ranges(model, [name for name in every if name not in known], shown[0].split(8))
            ranges = found | dict(known)
        integers = _store_integers(model, low, ranges, path)
        if ranges is not None and not integers:
            raise FewerError(
                "no layer of integers was found again in the exported graph, so that nothing can be rounded"
            )
    if known and shown is None:  # noise does not look like what the ranges were learnt from
        return integers, None, notes
    checked: list[Given] = [example]
    if isinstance(example, Tensor):
        checked = [example, *_longer(example, axes)] if shown is None else [*_whole_batches(shown[1], len(example))]
    difference, unsure = change_of(to, model, checked, path)
    allowed = allowed_change(example) if shown is None else float("inf")
    if difference is not None and not difference < allowed:
        raise FewerError(f"the exported model gives another output (relative difference {difference:.2g})")
    return integers, difference, [*notes, *unsure]


def _static_images(run: str | Path, recipe: Recipe, images: Any, low: Sequence[str], to: str) -> tuple[Tensor, Tensor]:
    """Images that give ranges, and others that judge."""
    if to != "onnx" or not low:
        what = "is for ONNX only" if to != "onnx" else "needs a plan with int8 or int4 layers, and this run has none"
        raise FewerError(f"activations='static' {what}; leave it out")
    folder = RunFolder.open(run)
    if images is None and folder.has("config"):
        images = folder.read_config().get("images")
    if images is None:
        raise FewerError(f"static activations need images, and {run} does not name any: give --images FOLDER")
    preprocess = Preprocess.of(recipe.preprocess or {}, f"{run}/recipe.json")
    if reads_inputs(recipe.meta.get("task"), images):
        raise FewerError(
            "static activations of a model of 'fewer train' need its inputs as a tensor: images= in Python"
        )
    if isinstance(images, Tensor):
        if len(images) < 2:
            raise FewerError("static activations need two images at least, one to find ranges and one to judge them")
        half = max(1, len(images) // 4)
        return images[:-half][:_CALIBRATION], images[-half:][:_HELDOUT]
    parts = [
        as_calibration(images, count, preprocess=preprocess, part=part).tensor
        for part, count in (("calibration", _CALIBRATION), ("heldout", _HELDOUT))
    ]
    if not all(map(len, parts)):
        raise FewerError(f"{images} holds too few readable images to judge static activations by some of them")
    return parts[0], parts[1]


def _whole_batches(images: Tensor, batch: int) -> list[Tensor]:
    """The file takes batches of one size only; a few images are repeated to fill one."""
    if len(images) < batch:
        images = images.repeat(-(-batch // len(images)), *[1] * (images.ndim - 1))
    return [part for part in images.split(batch) if len(part) == batch]


def _store_integers(model: nn.Module, low: Sequence[str], ranges: Mapping[str, InputRange] | None, path: Path) -> int:
    """Put integers into an exported file; how many layers hold them."""
    import onnx

    graph = onnx.load(path)
    weights: dict[str, Any] = {name: model.get_submodule(name).weight for name in low}
    weights |= {name: model.get_submodule(name).weight for name in _sharing(model, low)}
    done = [name for name in with_integers(graph, weights, ranges) if name in low]
    if done:
        onnx.checker.check_model(graph)
        onnx.save(graph, path)
    return len(done)


def _sharing(model: nn.Module, low: Sequence[str]) -> list[str]:
    """Layers whose weight is that of one of these."""
    own = {id(model.get_submodule(name).weight) for name in low}
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return [name for name, layer in layers if name not in low and id(layer._parameters.get("weight")) in own]


def _about_integers(
    recipe: Recipe,
    to: str,
    integers: int,
    shown: tuple[Tensor, Tensor] | None,
    difference: float | None,
    trained: bool,
) -> list[str]:
    kinds = [unit.precision for unit in recipe.units if unit.precision in _INTEGERS]
    low, named = len(kinds), " and ".join(sorted(set(kinds)))
    if not low or to != "onnx":
        return []
    if not integers:
        return [
            f"none of the {low} {named} layers was found again in the graph: they hold their rounded values in fp32"
        ]
    which = f"{integers} of {low} {named} layers hold integers"
    if trained:
        return [
            f"{which}, and their activations are rounded with the ranges that the training ended with; what that costs "
            "was not measured here: --images measures it"
        ]
    if shown is None:
        return [
            f"{which}, and their activations are not rounded by the file: for int8 products everywhere, export with "
            f"--activations static. onnxruntime rounds them by itself, unless its session is told {' = '.join(EXACT)}"
        ]
    error = "" if difference is None else f": a distortion of {difference**2:.3g} on {len(shown[1])} other images"
    return [
        f"{which}, and their activations are rounded with one scale for the whole tensor, found on {len(shown[0])} "
        f"images{error}; this package's own kernels have a scale for each token"
    ]


def _longer(example: Tensor, axes: Mapping[int, str]) -> list[Tensor]:
    """Inputs of other lengths along the axes that may have any."""
    return [torch.cat([example, example.narrow(axis, 0, example.shape[axis] // 2)], axis) for axis in axes]


def _onnx(model: nn.Module, example: Given, path: Path, axes: dict[int, str]) -> str:
    """Write the file; says why the model was traced, and nothing where it was not."""
    if axes:
        import onnx

        with contextlib.suppress(FewerError):
            write_onnx(model, arguments_of(example), path, axes, trace=False)
            if takes_any(onnx.load(path, load_external_data=False), axes):
                return ""
        axes.clear()  # its code needs the number: then the file takes one only, and says so
    return write_onnx(model, arguments_of(example), path)


def _input_shape(program: Any) -> Sequence[Any]:
    """Sides of the lone input of an exported program; those of any length are symbols."""
    names = set(program.graph_signature.user_inputs)
    return next(node.meta["val"].shape for node in program.graph.nodes if node.name in names)


def _torch(model: nn.Module, example: Given, path: Path, axes: dict[int, str]) -> str:
    """Write the program; nothing is ever traced."""
    try:
        with quiet(), torch.no_grad(), attributes_kept(model):
            shapes = ({axis: torch.export.Dim.AUTO for axis in axes},) if axes else None
            program = torch.export.export(model, arguments_of(example), dynamic_shapes=shapes)
            torch.export.save(program, path)
        if axes and any(type(_input_shape(program)[axis]) is int for axis in axes):
            axes.clear()  # its code needs the number
    except OSError:
        raise
    except Exception as error:
        raise FewerError(f"this model cannot be exported by torch.export: {first_line(error)}") from error
    return ""


def _lost(recipe: Recipe, weights: Path, size: int, to: str, axes: Mapping[int, str]) -> list[str]:
    """What a reader of the file should know."""
    if to == "kernels":
        return [
            "the file calls kernels of this package: import fewer.kernels.ops before torch.export.load(file).module()",
            "which kernel runs which layer was measured on this machine, and stays as it is on others",
            "the input size is fixed; preprocessing of images is not part of the file (torch gets tensors)",
        ]
    lost = []
    pruned = [u for u in recipe.units if u.pattern != "dense"]
    if pruned:
        lost.append(
            f"zeros of {len(pruned)} pruned layers are stored like other weights: {data_size(size)} instead of "
            f"{data_size(weights.stat().st_size)}, and other runtimes do not skip them: the file runs at dense speed"
        )
    low = sorted({u.precision for u in recipe.units} - ({"fp32", *_INTEGERS} if to == "onnx" else {"fp32"}))
    if low:
        lost.append(
            f"layers of {' and '.join(low)} hold their rounded values in fp32: activations are not rounded, and "
            "nothing runs faster for it; to get the planned speed use fewer.load(run, accelerated=True)"
        )
    runtime = "onnxruntime and OpenVINO" if to == "onnx" else "torch"
    fixed = "the input size is fixed" + (f", but for the number of {', '.join(axes.values())}" if axes else "")
    lost.append(f"{fixed}; preprocessing of images is not part of the file (give {runtime} tensors)")
    return lost
