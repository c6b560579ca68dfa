"""One function per kind of file that a task or a study reads: damage it, and let the task work with it."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutate import VALUES, mutated_bytes, mutated_json

__all__ = ["TASKS", "damage", "images_of_run", "net_of_run"]

_OF_SET = {
    "cifar": "classify", "cifar-binary": "classify", "mnist": "classify", "npz": "classify", "table": "classify",
    "photos": "classify", "kitti": "detect3d", "pcdet": "detect3d", "sweeps": "detect3d", "walks": "gait",
    "masks": "segment", "nnunet": "segment",
}  # fmt: skip


def damage(path: Path, draw: random.Random) -> None:
    """Change a file where its form says something: a JSON value, an array, a field of a pickle; or any of its bytes."""
    if draw.random() < 0.4:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    elif path.suffix == ".json":
        path.write_text(json.dumps(mutated_json(json.loads(path.read_text()), draw)))
    elif path.suffix in (".npz", ".npy"):
        _damage_arrays(path, draw)
    elif path.suffix in (".pkl", "") and path.read_bytes()[:1] == b"\x80":
        _damage_pickle(path, draw)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(mutated_bytes(gzip.decompress(path.read_bytes()), draw)))
    elif path.suffix in (".txt", ".csv"):
        _damage_words(path, draw)
    else:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))


def _other_array(old: np.ndarray, draw: random.Random) -> Any:
    if old.dtype.kind not in "fiub":
        old = np.arange(max(1, old.size))
    listed = np.atleast_1d(old)
    changes: list[Any] = [
        listed[:0], old[None], listed[:-1], old.ravel(), old.astype(np.float64), old.astype(np.complex64),
        np.array("x"),
        np.full(old.shape, np.nan), np.full(old.shape, 1e300), old.astype(np.int64) - 2**40, np.zeros((0, 0, 0)),
        np.array(["x"] * max(1, len(np.atleast_1d(old)))), np.array([1]), old.astype(bool), old.T,
        np.zeros((3, 1, 1), np.uint8), np.broadcast_to(np.uint8(1), (2, 2, 2, 2)), old.astype(">i2"),
    ]  # fmt: skip
    return draw.choice(changes)


def _damage_arrays(path: Path, draw: random.Random) -> None:
    if path.suffix == ".npy":
        np.save(path, _other_array(np.load(path), draw))
        return
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    name = draw.choice(sorted(arrays))
    if draw.random() < 0.2:
        del arrays[name]
    elif draw.random() < 0.2:
        arrays[f"{name}x"] = arrays.pop(name)
    else:
        arrays[name] = _other_array(arrays[name], draw)
    np.savez(path, **arrays)


def _damage_pickle(path: Path, draw: random.Random) -> None:
    found = pickle.loads(path.read_bytes())  # of this process's own making
    if not isinstance(found, dict):
        found = _other_array(found, draw)
    else:
        key = draw.choice(sorted(found))
        old = found[key]
        values = [*VALUES, _other_array(np.asarray(old), draw), b"x", [b"x"], {b"a": 1}, [b"\xff"] * 4, np.float64(1)]
        found[key] = draw.choice(values)
        if draw.random() < 0.2:
            del found[key]
    path.write_bytes(pickle.dumps(found, draw.choice([0, 2, 4, 5])))


def _damage_words(path: Path, draw: random.Random) -> None:
    words = path.read_text().split(" ")
    at = draw.randrange(len(words))
    words[at : at + draw.choice([0, 1, 1, 1, 3])] = [
        draw.choice(["nan", "inf", "-1e300", "x", "", "9" * 400, "1e400", "0", "-0.0", "é", "\n", ",", "\0", '"'])
    ]
    path.write_text(" ".join(words))


def _sets(work: Path, draw: random.Random) -> None:
    import fewer
    from fewer.tasks import open_task
    from fewer.tasks.task import Task

    found = sorted(p.name for p in (work / "sets").iterdir() if p.name in _OF_SET)
    name = draw.choice(found)
    place = work / "sets" / name
    damage(draw.choice(sorted(p for p in place.rglob("*") if p.is_file())), draw)
    task = open_task(_OF_SET[name])
    how = draw.random()
    if how < 0.6:
        fewer.doctor(place, task=task.name)
    elif how < 0.8:
        task.plan(place, task.settings())
    elif type(task).repair is not Task.repair:
        task.repair(task.checkup(place), work / "repaired")


def _trained(work: Path, draw: random.Random) -> None:
    import fewer

    place = work / "trained" / draw.choice(sorted(p.name for p in (work / "trained").iterdir()))
    path = place / "run" / "recipe.json"
    facts = json.loads(path.read_text())
    how = draw.random()
    if how < 0.6:  # what the task itself has written
        task = facts["meta"]["task"]
        key = draw.choice([k for k in facts["meta"] if k != "task"])
        facts["meta"][key] = _under_x(mutated_json({"x": facts["meta"][key]}, draw))
        facts["meta"]["task"] = task
    elif how < 0.8:
        facts["source"] = mutated_json(facts["source"], draw)
    else:
        facts = mutated_json(facts, draw)
    path.write_text(json.dumps(facts))
    act = draw.choice(["eval", "predict", "load", "images"])
    if act == "eval":
        fewer.evaluate(place / "run", place / "data", task=place.name)
    elif act == "predict":
        fewer.predict(place / "run", place / "data", out=work / "predicted", task=place.name)
    elif act == "images":
        from fewer.models.spec import load_model
        from fewer.tasks import open_task

        loaded = load_model(str(place / "run"))
        open_task(place.name).images(loaded, place / "data", 2, part="calibration", seed=0)
    else:
        fewer.load(place / "run")


def _opinions(work: Path, draw: random.Random) -> None:
    import fewer
    from fewer.study.export import read_pathways
    from fewer.study.tables import read_scores
    from fewer.tasks.quality.records import read_records

    place = work / "sets" / "opinions"
    name = draw.choice(["records.json", "questions.json", "answers.json", "scores.csv", "pathways.jsonl"])
    damage(place / name, draw)
    if name == "records.json":
        read_records(place / name)
        fewer.doctor(place / name, task="quality")
    elif name == "scores.csv":
        read_scores(place / name)
    elif name == "pathways.jsonl":
        read_pathways(place / name)
    else:
        fewer.evaluate(place / "answers.json", place / "questions.json", task="quality")


def _detections(work: Path, draw: random.Random) -> None:
    import fewer

    source, found = work / "sets" / "kitti", work / "found"
    labels = sorted(source.rglob("label_2/*.txt"))
    found.mkdir()
    for path in labels:
        lines = [f"{line} {0.5}" for line in path.read_text().splitlines()]
        (found / path.name).write_text("\n".join(lines) + "\n")
    damage(draw.choice(sorted(found.iterdir())), draw)
    fewer.evaluate(found, source, task="detect3d")


def _predicted(work: Path, draw: random.Random) -> None:
    """Predicted masks against a set: a damaged file, a renamed one, one of another kind."""
    import fewer

    name = draw.choice([p for p in ("masks", "nnunet") if (work / "sets" / p).is_dir()])
    source = work / "sets" / name
    found = work / "found"
    shutil.copytree(source / ("masks" if name == "masks" else "labelsTr"), found)
    path = draw.choice(sorted(found.iterdir()))
    if draw.random() < 0.8:
        damage(path, draw)
    else:
        path.rename(path.with_name(draw.choice(["x.png", "c0", "c0.nii", "case0.npy", ".hidden", "a b.nii.gz"])))
    fewer.evaluate(found, source, task="segment")


def _predictions(work: Path, draw: random.Random) -> None:
    """Features and predictions that are given to ``fewer select``."""
    import fewer

    rng = np.random.default_rng(draw.randrange(1000))
    np.save(work / "p.npy", rng.dirichlet(np.ones(3), 6).astype(np.float32))
    path = work / draw.choice(["features.npy", "p.npy"])
    damage(path, draw)
    more: dict[str, Any] = {"predictions": work / "p.npy", "method": "entropy"} if path.name == "p.npy" else {}
    fewer.select(work / "pool", "labels=2", out=work / "q2", features=work / "features.npy", **more)


def _study(work: Path, draw: random.Random) -> None:
    from fewer.study.export import export_study
    from fewer.study.new import new_study
    from fewer.study.owner import status
    from fewer.study.store import FILE, Store

    new_study(work / "study", work / "pool")
    path = work / "study" / FILE
    path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    store = Store(work / "study")
    status(store)
    export_study(store, work / "exported")


def _profile(work: Path, draw: random.Random) -> None:
    from fewer.cost.profile import DeviceProfile

    path = work / "profile.json"
    path.write_text(json.dumps(mutated_json(json.loads(path.read_text()), draw)))
    profile = DeviceProfile.load(path)
    for layer in ("Linear 4x4", "Linear 5x5"):
        for way in ("dense", "block"):
            if profile.has(layer, way):
                assert profile.ms(layer, way) >= 0


def _continued(work: Path, draw: random.Random) -> None:
    """A queue whose files are damaged, continued."""
    import fewer

    name = draw.choice(["plan.json", "images.jsonl", "config.toml", "vectors.f32", "vectors.f32.jsonl", "queue.csv"])
    path = work / "queue" / name
    if path.exists():
        damage(path, draw)
    fewer.select(None, "labels=1", out=work / "queue", proceed=True)


def _under_x(found: Any) -> Any:
    """What a mutation left under the name x; it may have made something else of the whole."""
    return found.get("x") if isinstance(found, dict) else found


def _applied(work: Path, draw: random.Random) -> None:
    """What stands beside the curves, read by ``fewer apply``."""
    import fewer

    path = work / "run" / "curves.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes())
    key = draw.choice(["tokens", "device", "reorderings", "settings", "state", "model"])
    good = {"tokens": {"amounts": {"blocks.0": 1}, "protected": 1}, "device": {"against_ms": 1.0, "runtime": "torch"}}
    good["reorderings"] = [{"producer": "blocks.0.mlp.0", "consumers": ["blocks.0.mlp.2"], "order": [1, 0]}]
    header["meta"][key] = _under_x(mutated_json({"x": header["meta"].get(key) or good.get(key)}, draw))
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    config = (work / "run" / "config.toml").read_text()
    fewer.apply(work / "run", model=net_of_run(), images=images_of_run()) if config else None


def net_of_run() -> Any:
    """The network that the run of the samples was made from."""
    import torch

    from fewer.models.vit import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(image_size=16, patch_size=8, width=32, depth=2, heads=2, num_classes=4)


def images_of_run() -> Any:
    """Images for it."""
    import torch

    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


TASKS: dict[str, Callable[[Path, random.Random], None]] = {
    "sets": _sets, "trained": _trained, "opinions": _opinions, "detections": _detections, "predicted": _predicted,
    "predictions": _predictions, "study": _study, "profile": _profile, "continued": _continued, "applied": _applied,
}  # fmt: skip
