"""Mutate every file that fewer reads, and its flags; what comes of it must be a FewerError or a good result.

A minute of it runs with the tests. By hand, as long as you like::

    PYTHONPATH=src:. python tests/fuzz/run.py --mutations 10000 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from tests.fuzz.mutate import FLAG_VALUES, mutated_bytes, mutated_json

MEMORY = 2**30
"""Bytes that a process may grow by, whatever a file claims."""

_WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link"}
_state: dict[str, Any] = {"home": None, "outside": []}


def _watch(event: str, facts: tuple[Any, ...]) -> None:
    """Note every write outside of the working folder."""
    home = _state["home"]
    if home is None or not (event in _WRITES or event == "open"):
        return
    if event == "open" and not (isinstance(facts[2], int) and facts[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    place = facts[0]
    if isinstance(place, (str, bytes)) and not str(Path.cwd() / os.fsdecode(place)).startswith((home, "/dev/")):
        _state["outside"].append(f"{event} {os.fsdecode(place)}")


def make_base(folder: Path) -> None:
    """A finished run, a queue, labels, pictures and volumes, all small."""
    import torch
    from PIL import Image

    import fewer
    from fewer.engine.settings import Settings
    from fewer.models.spec import LoadedModel
    from fewer.models.vit import VisionTransformer

    args = {"image_size": 16, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "num_classes": 4}
    torch.manual_seed(0)
    source = {"kind": "builtin", "name": "vit-small-16", "args": args}
    model = LoadedModel(VisionTransformer(**args), "net", source)
    settings = Settings(calibration=8, heldout=4, sensing=4, additivity=2, baselines=())
    fewer.compress(model, torch.randn(16, 3, 16, 16), "weights=50%", out=folder / "run", settings=settings)
    pool = folder / "pool"
    pool.mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 255, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(pool / f"{index}.png")
    np.save(folder / "features.npy", np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
    fewer.select(pool, "labels=3", out=folder / "queue", features=folder / "features.npy")
    labels = folder / "labels"
    labels.mkdir()
    tasks = [{"data": {"image": "/data/local-files/?d=0.png"}, "annotations": [
        {"result": [{"type": "choices", "value": {"choices": ["a"]}}]}]}]  # fmt: skip
    (labels / "studio.json").write_text(json.dumps(tasks))
    coco = {"images": [{"id": 1, "file_name": "0.png", "width": 12, "height": 12}], "annotations": [{"image_id": 1}]}
    (labels / "coco.json").write_text(json.dumps(coco))
    (labels / "list.csv").write_text("name,label\n0.png,a\n1.png,b\n")
    cvat = '<annotations><image id="0" name="0.png" width="12" height="12"><tag label="a"/></image></annotations>'
    (labels / "cvat.xml").write_text(cvat)
    pictures = folder / "pictures"
    pictures.mkdir()
    for kind in ("png", "tif", "jpg", "gif", "bmp"):
        Image.fromarray(pixels).save(pictures / f"a.{kind}")
    with contextlib.suppress(ImportError):
        import nibabel

        volume = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
        nibabel.save(volume, pictures / "v.nii")
        nibabel.save(volume, pictures / "v.nii.gz")


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


_FLAGS = {
    "plan": ["run", "--budget"],
    "info": ["run", "--exclude"],
    "select": ["pool", "--out=o", "--budget=labels=2", "--features=features.npy"],
    "report": ["run"],
    "apply": ["run", "--dry-run"],
    "compress": ["fewer/vit-small-16", "--images=pool", "--dry-run", "--budget=weights=50%"],
}


def _flags(work: Path, draw: random.Random) -> None:
    from fewer.cli.main import main

    verb = draw.choice(sorted(_FLAGS))
    names = ["--seed", "--batch", "--sparsities", "--pattern", "--precisions", "--out", "--calibration", "--damping",
             "--input-size", "--workers", "--budget", "--plan", "--method", "--labels", "--probes", "--exclude",
             "--threads", "--trust", "--device", "--images"]  # fmt: skip
    words = [verb, *_FLAGS[verb]]
    for _ in range(draw.choice([1, 1, 2])):
        words += [draw.choice(names), draw.choice(FLAG_VALUES)]
    said = io.StringIO()
    with contextlib.chdir(work), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(words)
    if code == 1:
        raise AssertionError(f"fewer {words}: {said.getvalue()}")


TARGETS: dict[str, Callable[[Path, random.Random], None]] = {
    "recipe": _recipe, "weights": _weights, "plan": _plan, "curves": _curves, "report": _report, "config": _config,
    "log": _log, "queue": _queue, "labels": _labels, "pictures": _pictures, "flags": _flags,
}  # fmt: skip


def fuzz(
    mutations: int,
    seed: int,
    base: Path | None = None,
    targets: list[str] | None = None,
    seconds: float = float("inf"),
) -> list[str]:
    """Run mutations, none that begins after ``seconds`` of CPU; what went wrong, every place of the code once."""
    until = time.process_time() + seconds
    names, faults, seen = targets or sorted(TARGETS), [], set()
    with tempfile.TemporaryDirectory(prefix="fewer-fuzz-") as folder:
        home = Path(folder)
        if base is None:
            make_base(base := home / "base")
        sys.addaudithook(_watch)
        started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for number in range(mutations):
            if time.process_time() > until:
                break
            draw, name = random.Random(f"{seed} {number}"), names[number % len(names)]
            work = home / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work)
            _state["home"], _state["outside"] = str(home), []
            try:
                TARGETS[name](work, draw)
            except FewerError as error:
                if len(str(error)) > 4000:
                    faults.append(f"{name} {number}: a sentence of {len(str(error))} characters")
            except Exception as error:
                frames = [f for f in traceback.extract_tb(error.__traceback__) if "/fewer/" in f.filename]
                at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
                if (name, type(error).__name__, at) not in seen:
                    seen.add((name, type(error).__name__, at))
                    faults.append(f"{name} {number}: {type(error).__name__} at {at}: {str(error)[:300]}")
            finally:
                _state["home"] = None
            faults += [f"{name} {number}: wrote outside: {one}" for one in set(_state["outside"])]
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - started
            if grown > MEMORY:
                faults.append(f"{name} {number}: memory grew by {grown / 1e6:.0f} MB")
                started += grown
    return faults


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS))
    words = parser.parse_args()
    faults = fuzz(words.mutations, words.seed, targets=words.only)
    print(*faults, sep="\n")
    kinds = collections.Counter(fault.split()[0] for fault in faults)
    print(f"{words.mutations} mutations, seed {words.seed}: {len(faults)} faults {dict(kinds)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
