"""Write a compressed model and its recipe into a run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.plan import Plan
from fewer.engine.prepare import Prepared
from fewer.kernels.copies import copied_module
from fewer.models.artefact import WEIGHTS, Saved, save_artefact
from fewer.models.running import device_of
from fewer.models.surgery import Removal
from fewer.runtimes.folder import RuntimeRecord, drop_runtime, save_runtime
from fewer.runtimes.module import RuntimeModule

__all__ = ["save_model", "save_runtime_files"]


def save_model(
    folder: str | Path,
    prepared: Prepared,
    model: nn.Module,
    plan: Plan,
    masks: Mapping[str, Tensor],
    removals: Sequence[Removal] = (),
) -> Saved:
    """Write ``model.safetensors`` and ``recipe.json``: packed weights, masks, patterns, precisions and surgery.

    ``masks`` are those of the model as it is now, after the removals.
    """
    if device_of(model) not in (None, torch.device("cpu")):  # a file knows no device
        model = copied_module(model).cpu()
    units: list[dict[str, Any]] = []
    for name, option in plan.options().items():
        mask = masks[name].cpu()
        dense = bool(mask.all())
        pattern = "unstructured" if option.removes else option.pattern  # what is left of a cut layer is dense
        units.append(
            {
                "name": name,
                "pattern": "dense" if dense else pattern,
                "sparsity": 0.0 if dense else 1 - float(mask.double().mean()),
                "precision": option.precision,
                "mask": None if dense else mask,
            }
        )
    source = prepared.loaded.source
    if removals:
        source = {**source, "surgery": [*source.get("surgery", []), *(r.to_dict() for r in removals)]}
    return save_artefact(
        folder,
        model,
        units,
        source,
        {**prepared.loaded.meta, "model": prepared.loaded.name},
        preprocess=prepared.loaded.preprocess,
        provenance=plan.curves,
        aside=prepared.conduct.aside if source.get("kind") in ("object", "file") else None,
    )


def save_runtime_files(folder: str | Path, fast: nn.Module | None) -> None:
    """Keep the file of the runtime that a plan was made for beside the model; one of an earlier plan goes."""
    if not isinstance(fast, RuntimeModule) or fast.file is None:
        drop_runtime(folder)
        return
    record = RuntimeRecord(
        runtime=fast.session.runtime,
        precision=fast.precision,
        shapes=[list(shape) for shape in fast.shapes],
        structure=fast.structure,
        weights=hashlib.sha256((Path(folder) / WEIGHTS).read_bytes()).hexdigest(),
        file_sha256=hashlib.sha256(fast.file).hexdigest(),
        free=list(fast.free),
        about=fast.about,
    )
    save_runtime(folder, fast.file, record)
