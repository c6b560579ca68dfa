"""What the fuzzer mutates: runs, queues, labels, pictures, volumes, and data sets and trained runs of every task."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["make_all", "make_base", "make_more", "make_profile", "make_sets", "make_trained"]


def make_all(folder: Path) -> None:
    """Everything, in one folder."""
    make_base(folder)
    make_profile(folder)
    make_sets(folder)
    make_trained(folder)
    make_more(folder)
    with contextlib.suppress(ImportError):
        from fewer.study.new import new_study

        new_study(folder / "study", folder / "pool")


def make_more(folder: Path) -> None:
    """Folders that one verb leaves for another: an export, a circuit with keys, a tuned and an adapted run."""
    import fewer

    fewer.export(folder / "run", "huggingface", out=folder / "exported")
    with contextlib.suppress(ImportError):
        _circuit(folder)
    with contextlib.suppress(ImportError):
        _tuned(folder)
    with contextlib.suppress(ImportError):
        _adapted(folder)
    _interrupted(folder)


def _circuit(folder: Path) -> None:
    import torch
    from torch import nn

    from fewer.verbs.private import private_compile, private_keys

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    private_compile(net, torch.randn(20, 1, 4, 4), folder / "circuit")
    private_keys(folder / "circuit", folder / "keys")


def _tuned(folder: Path) -> None:
    import peft  # noqa: F401
    import transformers  # noqa: F401

    import fewer

    small = {"steps": 2, "batch": 2, "quality_width": 4, "grid": 2, "input_size": 32, "every": 2}
    fewer.train(folder / "sets/opinions/records.json", task="quality", out=folder / "tuned", **small)


def _adapted(folder: Path) -> None:
    from fewer.cli.main import main
    from tests.adaptation.domains import SMALL, write_domains

    place = folder / "adapted"
    place.mkdir()
    write_domains(place)
    words = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["adapt", str(place / "source"), str(place / "target"), "--out", str(place / "run"), *words])


def _interrupted(folder: Path) -> None:
    """Trainings that were killed after their first checkpoint."""
    import fewer
    from tests.support.kill import killed_at
    from tests.support.tiny_tasks import TINY

    for name in sorted(p.name for p in (folder / "trained").iterdir()):
        place = folder / "interrupted" / name
        place.mkdir(parents=True)
        shutil.copytree(folder / "trained" / name / "data", place / "data")
        chosen = dict(TINY[name].settings)
        if name == "classify":
            chosen["network"] = "resnet20"

        def work(place: Path = place, name: str = name, chosen: dict[str, Any] = chosen) -> None:
            fewer.train(place / "data", task=name, out=place / "run", **chosen)

        for at in range(8, 60, 4):  # operations before the model is written
            shutil.rmtree(place / "run", ignore_errors=True)
            killed_at(at, place, work)
            if any((place / "run").rglob("checkpoint*.safetensors")):
                break


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


def make_sets(folder: Path) -> None:
    """A tiny data set in every format that a task reads, each in a folder of its own below ``sets``."""
    sets = folder / "sets"
    sets.mkdir()
    _classes(sets)
    _scans(sets)
    _walks(sets)
    _opinions(sets)
    with contextlib.suppress(ImportError):
        from tests.tasks.segment.simulated import write_folder, write_raw

        write_folder(sets / "masks", 4, (24, 24))
        write_raw(sets / "nnunet", 3, (10, 9, 8))


def _classes(sets: Path) -> None:
    import gzip
    import pickle

    from PIL import Image

    draw = np.random.default_rng(0)
    rows, labels = draw.integers(0, 255, (4, 3072), np.uint8), [0, 1, 2, 3]
    for name in ("cifar", "cifar-binary", "mnist", "npz", "table", "photos/a", "photos/b"):
        (sets / name).mkdir(parents=True)
    batch = {b"data": rows, b"labels": labels, b"filenames": [b"x"] * 4}
    (sets / "cifar/data_batch_1").write_bytes(pickle.dumps(batch, 2))
    (sets / "cifar/test_batch").write_bytes(pickle.dumps(batch, 4))
    (sets / "cifar/batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b", b"c", b"d"]}, 2))
    binary = b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, rows, strict=True))
    (sets / "cifar-binary/data_batch_1.bin").write_bytes(binary)
    (sets / "cifar-binary/test_batch.bin").write_bytes(binary)
    (sets / "cifar-binary/batches.meta.txt").write_text("a\nb\nc\nd\n")
    pixels = draw.integers(0, 255, (4, 28, 28), np.uint8)
    for part in ("train", "t10k"):
        images = bytes((0, 0, 8, 3)) + np.array([4, 28, 28], ">u4").tobytes() + pixels.tobytes()
        answers = bytes((0, 0, 8, 1)) + np.array([4], ">u4").tobytes() + bytes(labels)
        (sets / f"mnist/{part}-images-idx3-ubyte").write_bytes(images)
        (sets / f"mnist/{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(answers))
    for part in ("train", "test"):
        np.savez(sets / f"npz/{part}.npz", images=pixels, label=np.array(labels), classes=np.array(list("abcd")))
    for index in range(4):
        for place in (sets / "table", sets / "photos/a", sets / "photos/b"):
            noise = draw.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(noise).save(place / f"{index}.png")
    (sets / "table/labels.csv").write_text(
        "file,label,part\n0.png,a,train\n1.png,b,train\n2.png,a,test\n3.png,b,test\n"
    )
    (sets / "photos/classes.txt").write_text("a\nb\n")


def _scans(sets: Path) -> None:
    from fewer.tasks.detect3d.dataset import open_data
    from fewer.tasks.detect3d.layouts import custom_label_text, sweep_boxes_text
    from fewer.tasks.detect3d.simulator import SENSORS, Streets

    kitti = Streets(SENSORS["hdl-64"].ahead(20).thinned(8), seed=5).write(sets / "kitti", 2, val=0.5)
    frame = open_data(kitti).frame("000000")
    for name in ("pcdet/points", "pcdet/labels", "sweeps/sweeps", "sweeps/boxes"):
        (sets / name).mkdir(parents=True)
    np.save(sets / "pcdet/points/a.npy", frame.points)
    (sets / "pcdet/labels/a.txt").write_text(custom_label_text(frame.objects))
    five = np.hstack([frame.points[:, :4], np.zeros((len(frame.points), 1))]).astype("<f4")
    (sets / "sweeps/sweeps/a.pcd.bin").write_bytes(five.tobytes())
    (sets / "sweeps/boxes/a.json").write_text(sweep_boxes_text(frame.objects))


def _walks(sets: Path) -> None:
    from PIL import Image

    from fewer.tasks.gait.data.dataset import write_sequence
    from fewer.tasks.gait.protocols.records import Walk
    from fewer.tasks.gait.simulator import Walkers

    root = Walkers(seed=0).write(sets / "walks", 3, train=2, kinds=("nm-01", "nm-05"), views=("090",), frames=5)
    frames = np.zeros((5, 64, 64), np.uint8)
    frames[:, 8:60, 24:40] = 255
    write_sequence(root, Walk("004", "nm-01", "090"), frames, form="pkl")
    place = root / "005" / "nm-01" / "090"
    place.mkdir(parents=True)
    for index in range(3):
        Image.fromarray(frames[index]).save(place / f"{index}.png")


def _opinions(sets: Path) -> None:
    from PIL import Image

    place = sets / "opinions"
    place.mkdir()
    Image.new("RGB", (16, 16), "red").save(place / "a.png")
    talk = [{"from": "human", "value": "<image>\nIs it blurry?"}, {"from": "gpt", "value": "No"}]
    records: list[dict[str, Any]] = [{"id": "0", "image": "a.png", "conversations": talk, "gt_score": 3.5}]
    (place / "records.json").write_text(json.dumps(records))
    asked = {"img_path": "a.png", "question": "Is it blurry?", "candidates": ["Yes", "No"], "correct_ans": "No"}
    (place / "questions.json").write_text(json.dumps([asked | {"type": 0, "concern": 1}]))
    (place / "answers.json").write_text(json.dumps({"a.png": "B"}))
    (place / "scores.csv").write_text("file,score\na.png,3.5\nb.png,2\n")
    (place / "pathways.jsonl").write_text(
        json.dumps({"image": "a.png", "rater": "r", "description": "It is blurry.", "conclusion": "Poor."}) + "\n"
    )


def make_trained(folder: Path) -> None:
    """A finished and an interrupted training of every task that trains in seconds, below ``trained``."""
    import fewer
    from tests.support.tiny_tasks import TINY

    place = folder / "trained"
    place.mkdir()
    for name, tiny in TINY.items():
        if name == "disc":
            continue
        (place / name).mkdir()
        data = tiny.tiny_data(place / name)
        chosen = {k: v.format(folder=place / name) if isinstance(v, str) else v for k, v in tiny.settings.items()}
        if name == "classify":
            chosen["network"] = "resnet20"
        fewer.train(data, task=name, out=place / name / "run", **chosen)
        data.rename(place / name / "data")


def make_profile(folder: Path) -> None:
    """A profile of an invented machine."""
    from fewer.cost.device import device_facts
    from fewer.cost.profile import DeviceProfile, Timing

    points = {"Linear 4x4 | dense": Timing(0.5, 0.01, 5), "Linear 4x4 | block": Timing(0.25, 0.01, 5)}
    DeviceProfile(device_facts(), points, 2.0, "invented").save(folder / "profile.json")
