"""Do two checkouts give the same results, bit for bit? For changes that are meant to change no number.

    python benchmarks/same_results.py BEFORE AFTER --native libfewer_native.so [--only demo,latency]

In each checkout a process of its own runs four small jobs on one thread: ``demo`` (plan, weights and curves of a
pretrained network on real photos, with a contest and baselines), ``latency`` (a plan under a time budget, with times
that are made up, so that it is the same on every machine), ``train`` (a segmentation network on simulated pictures) and
``recover`` (steps of training of a compressed network). Every tensor and every plan is hashed, and the hashes of the
two checkouts are compared. Names that differ between the checkouts are tried one after the other. The exit status is
0 where all hashes are equal.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JOBS = ("demo", "latency", "train", "recover")


def first_of(*names: str) -> Any:
    """The first attribute, given as ``module:name``, that this checkout has."""
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"this checkout has none of {', '.join(names)}")


def digest(value: Any) -> str:
    """Hash of a tensor, array, number, string, or a nest of them."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous().cpu()
        data = value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
        text = f"{value.dtype}{tuple(value.shape)}".encode() + data
    elif isinstance(value, np.ndarray):
        text = f"{value.dtype}{value.shape}".encode() + value.tobytes()
    elif isinstance(value, Mapping):
        text = "".join(f"{k}{digest(v)}" for k, v in sorted(value.items())).encode()
    elif isinstance(value, (list, tuple)):
        text = "".join(map(digest, value)).encode()
    else:
        text = repr(value).encode()
    return hashlib.sha256(text).hexdigest()


def of_run(run: Any) -> dict[str, Any]:
    """What must be the same of a compressed run."""
    rows = run.report.to_dict() if hasattr(run.report, "to_dict") else json.loads(run.report.to_json())
    return {
        "weights": dict(run.model.state_dict()),
        "masks": run.masks,
        "options": {name: str(option) for name, option in run.plan.options().items()},
        "distortion of the plan": run.plan.distortion,
        "curves": [curve.distortion for curve in run.curves.curves],
        "costs": [dict(curve.cost) for curve in run.curves.curves],
        "held out": rows["verdict"]["distortion"],
        "baselines": [(row["name"], row["distortion"]) for row in rows["baselines"]],
        "contest": [(row["name"], row["measured"]) for row in rows.get("contest") or []],
    }


def demo(_folder: Path) -> dict[str, Any]:
    """The main job with few images: sensing, contest, plan, repair, baselines, frontier, report."""
    import fewer
    from fewer.data.photos import real_photos

    settings = fewer.Settings(
        calibration=12, sensing=4, heldout=4, baselines=("uniform",), additivity=2, sparsities=(0.3, 0.6, 0.8),
        backend="serial", seed=1,
    )  # fmt: skip
    photos = [photo.path for photo in real_photos()]
    return of_run(fewer.compress("fewer/mobilenet-v2", photos, "weights=50%", settings=settings))


class MadeUpWatch:
    """A stopwatch of made-up times: what a way takes follows from its name."""

    reference_ms = 2.0

    def __init__(self, *_: Any) -> None: ...

    def time(self, candidates: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        from fewer.cost.stopwatch import Timing

        return {n: Timing(self._ratio(n), 0.01, 5) for n in candidates}

    def _ratio(self, way: str) -> float:
        if way in ("dense", "fast"):
            return {"dense": 30.0, "fast": 6.45}[way]
        speed = next((s for p, s in {"fp32": 1.0, "bf16": 0.5, "int8": 0.25}.items() if p in way), None)
        if speed is None:
            return 30.0 if way == "as it came" else 1.2
        left = 1 - float(way.partition("@")[2] or 0)
        return (20.0 if way.startswith("accelerated") else 1.0) * (0.1 + speed * left)


def latency(folder: Path) -> dict[str, Any]:
    """A plan under a time budget whose times are made up."""
    stopwatch = importlib.import_module("fewer.cost.stopwatch")
    stopwatch.Stopwatch = MadeUpWatch  # type: ignore[attr-defined]
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    import torch
    from torch import nn

    import fewer

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    settings = fewer.Settings(
        pattern="block:16x4,block:16x16", precisions=("fp32", "int8"), sparsities=(0.25, 0.5, 0.75), calibration=21,
        sensing=7, heldout=4, baselines=("uniform", "lpvit"), additivity=2, backend="serial",
    )  # fmt: skip
    return of_run(fewer.compress(net, torch.randn(32, 48), "latency=0.3x", settings=settings))


def train(folder: Path) -> dict[str, Any]:
    """A segmentation network on simulated pictures of discs."""
    import numpy as np
    from PIL import Image

    for name in ("images", "masks"):
        (folder / "discs" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:32, :36]
    for index in range(8):
        centre, radius = rng.uniform(12, 20, 2), rng.uniform(5, 9)
        mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
        grey = np.clip(rng.normal(90, 12, mask.shape) + 70 * mask, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / "discs" / "images" / f"case{index}.png")
        Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "discs" / "masks" / f"case{index}.png")
    settings_of = first_of("fewer.tasks.segment.settings:TrainSettings")
    run = first_of("fewer.tasks.segment.training:train")(
        folder / "discs",
        settings=settings_of(width=4, levels=3, patch_voxels=1024, batch=4, steps=6, every=2, learning_rate=4e-3),
    )
    return {"weights": dict(run.model.state_dict())}


def recover(folder: Path) -> dict[str, Any]:
    """Steps of training of a compressed network."""
    import torch
    from torch import nn

    import fewer

    def net() -> nn.Module:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(512, 12), nn.ReLU(), nn.Linear(12, 10)).eval()

    images = torch.randn(72, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    settings = fewer.Settings(
        compensation="none", calibration=54, sensing=7, heldout=12, baselines=(), additivity=0, backend="serial",
        sparsities=(0.25, 0.5, 0.75, 0.9),
    )  # fmt: skip
    before = fewer.compress(net(), images, "weights=40%", settings=settings, out=folder / "run")
    own = "settings" if "settings" in inspect.signature(fewer.recover).parameters else "course"  # its older name
    done = fewer.recover(
        folder / "run", None, steps=20, model=net(), images=images, out=folder / "recovered", **{own: {"rate": 0.02}}
    )
    return {"before": of_run(before), "weights": dict(done.model.state_dict()), "masks": done.masks}


@contextmanager
def one_thread() -> Iterator[None]:
    import torch

    torch.set_num_threads(1)
    yield


def probe(job: str) -> dict[str, str]:
    """Hashes of one job in the checkout whose package is on the path."""
    run: Callable[[Path], dict[str, Any]] = globals()[job]
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder))
    return {name: digest(value) for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkouts", nargs="*", help="two folders that hold src/fewer")
    parser.add_argument("--native", default=os.environ.get("FEWER_NATIVE_LIB", ""), help="the kernels' library")
    parser.add_argument("--only", default=",".join(JOBS))
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe:
        print(json.dumps(probe(args.probe)))
        return 0
    if len(args.checkouts) != 2:
        parser.error("give two checkouts")
    different = 0
    for job in args.only.split(","):
        found: list[dict[str, str]] = []
        for place in args.checkouts:
            environment = os.environ | {"PYTHONPATH": str(Path(place).resolve() / "src"), "OMP_NUM_THREADS": "1"}
            if args.native:
                environment["FEWER_NATIVE_LIB"] = str(Path(args.native).resolve())
            command = [sys.executable, __file__, "--probe", job]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tempfile.gettempdir())
            if done.returncode:
                print(f"{job}: failed in {place}\n{done.stderr[-2000:]}")
                return 1
            found.append(json.loads(done.stdout.splitlines()[-1]))
        for name in found[0] | found[1]:
            same = found[0].get(name) == found[1].get(name)
            different += not same
            print(f"{job:8} {name:24} {'same' if same else 'DIFFERENT'} {str(found[0].get(name))[:12]}")
    print("all the same" if not different else f"{different} results differ")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
