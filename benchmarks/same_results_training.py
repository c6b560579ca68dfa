"""Do two checkouts train to the same weights, bit for bit? For changes of the training loop that change no number.

    python benchmarks/same_results_training.py BEFORE AFTER

In each checkout a process of its own trains small networks on simulated data for a few steps, on one thread: a
segmentation with AdamW and one with SGD after a warm-up by restoration, a warm-up by contrast, and the recovery of a
compressed network in fp32 and in int8. Weights and histories are hashed, and the hashes of the two checkouts are
compared. Names that differ between the checkouts are tried one after the other. The exit status is 0 where all hashes
are equal. ``same_results.py`` runs whole verbs in the same way; :data:`JOBS` may be called from there.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def _module(*names: str) -> Any:
    """The first module of these that the checkout has."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise SystemExit(f"this checkout has none of {', '.join(names)}")


def _digest(state: dict[str, Any], history: list[list[float]]) -> str:
    import torch

    text = hashlib.sha256(json.dumps(history).encode())
    for name, value in sorted(state.items()):
        text.update(name.encode())
        text.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return text.hexdigest()


def _numbers(history: list[dict[str, float]], *names: str) -> list[list[float]]:
    return [[entry[name] for name in names if name in entry] for entry in history]


def _discs(folder: Path) -> Path:
    """Simulated pictures of bright discs with their masks."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:32, :36]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(8):
        centre, radius = rng.uniform(12, 20, 2), rng.uniform(5, 9)
        mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
        grey = np.clip(rng.normal(90, 12, mask.shape) + 70 * mask, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / "images" / f"case{index}.png")
        Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "masks" / f"case{index}.png")
    return folder


_SMALL = {"width": 4, "levels": 3, "patch_voxels": 1024, "batch": 4, "steps": 6, "every": 2, "learning_rate": 4e-3}


def _segment(folder: Path, **values: Any) -> str:
    settings = _module("fewer.tasks.segment.settings").TrainSettings(**_SMALL | values)
    run = _module("fewer.tasks.segment.training").train(_discs(folder / "discs"), settings=settings)
    history = _numbers(run.history, "step", "loss", "score") + _numbers(run.warm_up, "step", "loss")
    return _digest(run.model.state_dict(), history)


def segment_adamw(folder: Path) -> str:
    """A segmentation with dropout and augmentation."""
    return _segment(folder, dropout=0.2, augment="full")


def segment_sgd(folder: Path) -> str:
    """SGD, after a warm-up by restoration."""
    return _segment(folder, optimiser="sgd", warm_up="restoration", warm_up_steps=4)


def warm_up_contrast(folder: Path) -> str:
    """A warm-up by contrast alone."""
    settings = _module("fewer.tasks.segment.settings").TrainSettings(**_SMALL, warm_up="contrastive", warm_up_steps=4)
    data = _module("fewer.tasks.segment.dataset").open_data(_discs(folder / "discs"))
    warm = _module("fewer.tasks.segment.warmup").warm_network(data, settings)
    return _digest(warm.model.state_dict(), _numbers(warm.history, "step", "loss"))


def _recover(precision: str) -> str:
    import torch
    from torch import nn

    loop = _module("fewer.distillation.recover", "fewer.distill.loop")
    held_of = _module("fewer.training.constrained", "fewer.distill.fixed").Held
    find_blocks = _module("fewer.distillation.blocks", "fewer.distill.blocks").find_blocks
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
    teacher = nn.Sequential(*layers, nn.Linear(512, 12), nn.ReLU(), nn.Linear(12, 10)).eval()
    student, held = copy.deepcopy(teacher), {}
    for name in ("0", "4", "6"):
        weight = student.get_submodule(name).weight
        mask = weight.abs() > weight.abs().flatten().kthvalue(weight.numel() // 2).values
        weight.data.mul_(mask)
        held[name] = held_of(mask, precision)
    images = torch.randn(72, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference = _module("fewer.distortion.outputs").Reference([teacher(images[64:])])
    blocks = find_blocks(teacher, list(held), images[:1])

    def draw(step: int) -> torch.Tensor:
        return images[torch.randint(64, (8,), generator=torch.Generator().manual_seed(step))]

    def error(model: nn.Module) -> float:
        with torch.no_grad():
            return float(reference.change(0, model(images[64:])).mean())

    if hasattr(loop, "train_student"):
        models = loop.TeacherStudent(teacher, student, held, blocks, reference)
        done = loop.train_student(models, loop.RecoverySettings(steps=20, rate=0.02), draw, error)
    else:
        models = loop.Pair(teacher, student, held, blocks, reference)
        done = loop.teach(models, loop.Course(steps=20, rate=0.02), draw, error)
    return _digest(student.state_dict(), _numbers(done.history, "step", "error", "score"))


def recover_fp32(folder: Path) -> str:
    """Recovery of half of the weights."""
    return _recover("fp32")


def recover_int8(folder: Path) -> str:
    """Recovery of half of the weights, rounded to eight bits."""
    return _recover("int8")


JOBS = {job.__name__: job for job in (segment_adamw, segment_sgd, warm_up_contrast, recover_fp32, recover_int8)}
"""Small trainings by name: from an empty folder to a hash."""


def _probe(names: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = JOBS[name](Path(folder))
    print(json.dumps(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkouts", nargs="*", help="two folders that hold src/fewer")
    parser.add_argument("--only", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe:
        _probe(args.only)
        return 0
    if len(args.checkouts) != 2:
        parser.error("give two checkouts")
    found = []
    for place in args.checkouts:
        environment = os.environ | {"PYTHONPATH": str(Path(place).resolve() / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--probe", "--only", *args.only]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tempfile.gettempdir())
        if done.returncode:
            print(f"failed in {place}\n{done.stderr[-2000:]}")
            return 1
        found.append(json.loads(done.stdout.splitlines()[-1]))
    for name in args.only:
        print(f"{name:18} {'same' if found[0][name] == found[1][name] else 'DIFFERENT'} {found[0][name][:12]}")
    same = found[0] == found[1]
    print("all the same" if same else "results differ")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
