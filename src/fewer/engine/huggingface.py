"""A run's model as a folder for the Hugging Face Hub: card, configuration, preprocessing, weights."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, explain_os_error, refuse_links
from fewer.core.folder import finish_exchange
from fewer.core.lock import LOCK, FolderLock
from fewer.core.reading import nested, parse_json, read_text
from fewer.core.run import RunFolder
from fewer.core.staging import NEXT, Staging
from fewer.core.version import __version__
from fewer.data.preprocess import Preprocess
from fewer.models.artefact import RECIPE, WEIGHTS
from fewer.models.load import load
from fewer.models.recipe import Recipe
from fewer.models.trust import Trust
from fewer.reports import RunReport
from fewer.reports.compression.card import model_card

__all__ = ["CARD", "CONFIG", "IMAGES", "write_hub_folder"]

CARD, CONFIG, IMAGES = "README.md", "config.json", "preprocessor_config.json"
_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""Numbers by which Pillow, and so transformers, knows an interpolation."""


def write_hub_folder(
    run: Path,
    out: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    architecture: Callable[[], nn.Module] | None = None,
    trust: Trust = False,
) -> tuple[int, list[str]]:
    """Write the folder and load it again.

    Parameters
    ----------
    run
        Run folder.
    out
        Folder to make; one of an earlier export is replaced where ``overwrite`` says so.
    recipe
        Of the run.
    overwrite
        Whether an earlier export may be replaced.
    architecture, trust
        As for :func:`fewer.load`.

    Returns
    -------
    int
        Bytes of the weights.
    list of str
        What whoever publishes the folder should know.

    Raises
    ------
    FewerError
        When the folder holds something else, cannot be written, or does not give the run's tensors back.
    """
    fresh = not out.exists()
    _refuse(out, overwrite)
    lock, staging = FolderLock(out), Staging(out)
    lock.take()
    try:
        staging.discard()
        staging.begin()
        for name in (WEIGHTS, RECIPE):
            shutil.copyfile(run / name, staging.path / name)
        for name, text in _texts(run, recipe).items():
            atomic_write_text(staging.path / name, text)
        _check_loads(run, staging.path, architecture, trust)
        staging.commit([IMAGES])
    except OSError as error:
        raise explain_os_error(error, out) from None
    finally:
        if not staging.complete():
            staging.discard()
        lock.release()
        if fresh:
            with contextlib.suppress(OSError):
                out.rmdir()  # where nothing came into it
    return (out / WEIGHTS).stat().st_size, _to_know(recipe)


def _refuse(out: Path, overwrite: bool) -> None:
    """Make the folder; never write into one that is not an earlier export."""
    if os.path.lexists(out) and (not out.is_dir() or out.is_symlink()):
        raise FewerError(f"{out} is no folder; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        finish_exchange(out)
        names = {path.name for path in out.iterdir()} - {NEXT, LOCK}
    except OSError as error:
        raise explain_os_error(error, out) from None
    config = out / CONFIG
    ours = config.is_file() and parse_json(read_text(config, what="configuration"), str(config))
    if names and (not isinstance(ours, dict) or ours.get("library_name") != "fewer"):
        raise FewerError(f"{out} is not empty and was not made by fewer export; choose another --out")
    if names and not overwrite:
        raise FewerError(f"{out} exists already; give another --out, or --overwrite")
    refuse_links(out, {*names, NEXT})


def _texts(run: Path, recipe: Recipe) -> dict[str, str]:
    """Everything but the weights and the recipe, by the name of the file."""
    folder = RunFolder(run)
    text = folder.read_text("report_json") if folder.has("report_json") else "{}"
    # the report of a training is a page of another kind
    report = RunReport.from_json(text) if "verdict" in parse_json(text, f"{run}/report.json") else None
    name = str(recipe.meta.get("model") or (report.model.name if report is not None else "model"))
    if recipe.source.get("kind") == "file":  # where a file lies on this machine is nobody's business
        name = Path(name).name
    facts = {
        "layers": len(recipe.units),
        "patterns": sorted({unit.pattern for unit in recipe.units}),
        "precisions": sorted({unit.precision for unit in recipe.units}),
    }
    config: dict[str, Any] = {"library_name": "fewer", "fewer_version": __version__, "base_model": name, **facts}
    classes = nested(recipe.meta, "classify", "classes")
    if isinstance(classes, list) and all(isinstance(one, str) for one in classes):
        config["id2label"] = {str(i): one for i, one in enumerate(classes)}
    texts = {CARD: model_card(name, report, facts), CONFIG: _json(config)}
    if recipe.preprocess is not None:
        preprocess = Preprocess.of(recipe.preprocess, f"{run}/{RECIPE}")
        config["input_size"] = list(preprocess.input_size)
        texts |= {CONFIG: _json(config), IMAGES: _json(_preprocessor(preprocess))}
    return texts


def _preprocessor(found: Preprocess) -> dict[str, Any]:
    """The same resizing, cropping and scaling in the words of transformers."""
    _, height, width = found.input_size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": round(min(height, width) / found.crop)},
        "resample": _RESAMPLE[found.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(found.mean),
        "image_std": list(found.std),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _check_loads(run: Path, made: Path, architecture: Callable[[], nn.Module] | None, trust: Trust) -> None:
    """The folder must give back every tensor of the run, to the last bit."""
    before, after = (load(place, architecture, trust=trust).state_dict() for place in (run, made))
    for name, tensor in before.items():
        if not torch.equal(tensor.nan_to_num(), after[name].nan_to_num()):
            raise FewerError(f"the tensor {name!r} of the exported folder is not that of the run")


def _to_know(recipe: Recipe) -> list[str]:
    told = [
        "the folder is read by fewer.load; transformers and timm do not know packed weights",
        "the licence of the original model is not known here: add it to the card before you publish",
    ]
    if recipe.source.get("kind") == "file":
        told.append(
            f"recipe.json names the Python file {recipe.source.get('path')}, which is not part of the folder; whoever "
            "loads it needs architecture=, see fewer.load"
        )
    if recipe.source.get("kind") == "object":
        told.append("the model was given as a Python object: whoever loads it needs architecture=, see fewer.load")
    return told
