"""One function per kind of file: damage it, and let fewer read it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.mutate import mutated_bytes, mutated_json

__all__ = ["FILES"]


def _json_file(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.2:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    else:
        path.write_text(json.dumps(mutated_json(json.loads(path.read_text()), draw)))


def _recipe(work: Path, draw: random.Random) -> None:
    from fewer.models.artefact import load_artefact, load_masks

    _json_file(work / "run" / "recipe.json", draw)
    (load_artefact if draw.random() < 0.7 else load_masks)(work / "run")


def _weights(work: Path, draw: random.Random) -> None:
    import hashlib

    from fewer.models.artefact import load_artefact, load_masks

    path, recipe = work / "run" / "model.safetensors", work / "run" / "recipe.json"
    path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    facts = json.loads(recipe.read_text()) | {"weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    recipe.write_text(json.dumps(facts))
    (load_artefact if draw.random() < 0.7 else load_masks)(work / "run")


def _plan(work: Path, draw: random.Random) -> None:
    from fewer.core.plan import Plan
    from fewer.core.run import RunFolder

    _json_file(work / "run" / "plan.json", draw)
    run = RunFolder.open(work / "run")
    Plan.load(work / "run" / "plan.json").choice(run.read_curves())


def _curves(work: Path, draw: random.Random) -> None:
    import fewer

    path = work / "run" / "curves.npz"
    if draw.random() < 0.3:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    else:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        if draw.random() < 0.7:
            header = mutated_json(header, draw)
        else:
            name = draw.choice(sorted(arrays))
            old = arrays[name]
            changes = [old * np.nan, old * np.inf, -old, old[:-1], old[None], old.astype(int), old * 1e300,
                       np.array(["x"] * len(old)), old.astype(np.complex64), old[:0]]  # fmt: skip
            arrays[name] = draw.choice(changes)
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(path, header=text, **arrays)
    fewer.plan(work / "run", "weights=60%")


def _report(work: Path, draw: random.Random) -> None:
    import fewer
    from fewer.core.run import RunFolder
    from fewer.reports import RunReport

    _json_file(work / "run" / "report.json", draw)
    if draw.random() < 0.1:  # pages take a second each
        fewer.report(work / "run")
    else:
        RunReport.from_json(RunFolder.open(work / "run").read_text("report_json"))


def _config(work: Path, draw: random.Random) -> None:
    from fewer.cli.config import resolve
    from fewer.core.run import RunFolder
    from fewer.core.toml import dump_toml

    path = work / "run" / "config.toml"
    config = RunFolder.open(work / "run").read_config()
    if draw.random() < 0.5:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    else:
        path.write_text(dump_toml(mutated_json(config, draw)), errors="replace")
    resolve({}, None, path, {})


def _log(work: Path, draw: random.Random) -> None:
    from fewer.core.run import RunFolder

    path = work / "run" / "log.jsonl"
    path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    with RunFolder.edit(work / "run") as run:
        list(run.read_log())


def _queue(work: Path, draw: random.Random) -> None:
    from fewer.selection.folder import QueueFolder

    name = draw.choice(["plan.json", "images.jsonl", "config.toml"])
    path = work / "queue" / name
    if name == "plan.json":
        _json_file(path, draw)
    else:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    with QueueFolder.create(work / "queue", proceed=True) as queue:
        queue.read_plan(), queue.read_names(), queue.read_config()


def _labels(work: Path, draw: random.Random) -> None:
    from fewer.selection.labels import read_labels

    path = draw.choice(sorted((work / "labels").iterdir()))
    if path.suffix == ".json":
        _json_file(path, draw)
    else:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    if draw.random() < 0.3:
        import zipfile

        with zipfile.ZipFile(work / "labels.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
        path = work / "labels.zip"
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    read_labels(path, work / "pool", [f"{i}.png" for i in range(6)])


def _pictures(work: Path, draw: random.Random) -> None:
    from fewer.tasks.segment.files import read_picture

    path = draw.choice(sorted((work / "pictures").iterdir()))
    path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    read_picture(path)


FILES: dict[str, Callable[[Path, random.Random], None]] = {
    "recipe": _recipe, "weights": _weights, "plan": _plan, "curves": _curves, "report": _report, "config": _config,
    "log": _log, "queue": _queue, "labels": _labels, "pictures": _pictures,
}  # fmt: skip
