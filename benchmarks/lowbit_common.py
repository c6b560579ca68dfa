"""What the benchmarks of low-bit training and of distillation share: a part of CIFAR-10, and a row per training.

The data are CIFAR-10 as JPEG files in npz (``train.npz`` and ``test.npz`` with ``jpeg``, ``offset`` and ``label``), or
any folder that ``fewer train --task classify`` reads and that has the parts train and test. Accuracies on the JPEG
files are below those on the original ones: rows are to be compared with each other, not with papers.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from tables import Table

__all__ = [
    "COLUMNS",
    "KEYS",
    "arguments",
    "opened",
    "options_of",
    "part_of",
    "plot",
    "recipe",
    "started",
    "train_row",
    "trained",
    "unlabelled",
]

COLUMNS = (
    "network", "row", "bits", "seed", "start", "steps", "batch", "rate", "images", "judged", "accuracy", "cpu_seconds",
)  # fmt: skip
KEYS = 10
"""Columns that name a row."""


def arguments(note: str, steps: int) -> argparse.ArgumentParser:
    """The flags that all of these scripts have."""
    parser = argparse.ArgumentParser(description=note, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.npz and test.npz")
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--start-steps", type=int, default=0, help="in fp32, before every row")
    parser.add_argument("--start-rate", type=float, help="of those steps; that of the rows by default")
    parser.add_argument("--init", help="run folder or file of weights that all this begins with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000, help="that train")
    parser.add_argument("--judged", type=int, default=10_000, help="that judge")
    parser.add_argument("--rows", help="comma-separated, of those that the script knows")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--small", action="store_true", help="sizes of which all rows take minutes; other flags win")
    return parser


def options_of(parser: argparse.ArgumentParser, **small: Any) -> argparse.Namespace:
    """The flags that are given; with ``--small`` these defaults stand in place of the usual ones."""
    if parser.parse_args().small:
        parser.set_defaults(**small)
    return parser.parse_args()


def part_of(folder: Path, place: Path, images: int, judged: int) -> Path:
    """A folder with the first so many images of a fixed random order, decoded."""
    from PIL import Image

    target = place / f"cifar-{images}-{judged}"
    target.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", images), ("test", judged)):
        if (target / f"{part}.npz").exists():
            continue
        with np.load(folder / f"{part}.npz", allow_pickle=False) as found:
            order = np.random.default_rng(0).permutation(len(found["label"]))[:count]
            raw, offset, label = found["jpeg"].tobytes(), found["offset"], found["label"]
            pictures = [
                np.asarray(Image.open(io.BytesIO(raw[offset[i] : offset[i + 1]])).convert("RGB")) for i in order
            ]
            np.savez(target / f"{part}.npz", images=np.stack(pictures), label=label[order], classes=found["classes"])
    return target


def unlabelled(data: Path, count: int = 2000) -> Path:
    """A folder with some of the training images alone, for compressions: no image that judges a row steers a plan."""
    target = data.with_name(f"{data.name}-unlabelled")
    if not (target / "train.npz").exists():
        target.mkdir(parents=True, exist_ok=True)
        with np.load(data / "train.npz", allow_pickle=False) as found:
            np.savez(target / "train.npz", **{key: found[key][:count] for key in ("images", "label", "classes")})
    return target


@lru_cache(maxsize=1)
def opened(folder: Path) -> Any:
    from fewer.tasks.classify.readers import open_data

    return open_data(folder)


def recipe(options: argparse.Namespace, steps: int, seed: int) -> dict[str, Any]:
    """Settings that all rows share: one cycle of the rate, up for a fifth of the steps, then down to 0."""
    common: dict[str, Any] = {"network": options.network, "steps": steps, "batch": options.batch, "seed": seed}
    common |= {"learning_rate": options.rate, "optimiser": "sgd", "momentum": 0.9, "weight_decay": 5e-4}
    if options.network.startswith("vit"):  # transformers do not learn by plain gradient descent
        common |= {"optimiser": "adamw", "weight_decay": 0.05}
    return common | {"rate_shape": "polynomial", "rate_warm_up": 0.2, "every": steps, "clip": 5.0}


def started(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Where every row starts: a run in fp32 that is trained once for all, else ``--init``; nothing without both."""
    from fewer.tasks.classify.settings import TrainSettings
    from fewer.tasks.classify.training import train

    begin = {"init": options.init} if options.init else {}
    if not options.start_steps:
        return begin
    rate = options.start_rate or options.rate
    run = data.parent / f"start-{options.network}-{options.start_steps}-{options.batch}-{options.images}-{rate:g}"
    run = run.with_name(run.name + (f"-{Path(options.init).stem}" if options.init else ""))
    if not (run / "report.json").exists():
        torch.set_num_threads(1)
        settings = TrainSettings(**recipe(options, options.start_steps, 100) | {"learning_rate": rate} | begin)
        done = train(opened(data), out=run, settings=settings, overwrite=run.exists())
        assert done.evaluation is not None
        print(f"start: {done.evaluation.top1:.4f}", flush=True)
    return {"init": str(run)}


def trained(data: Path, settings: dict[str, Any]) -> tuple[float, int]:
    """Accuracy of the network as trained, and the seconds of processor time that training and judging took."""
    from fewer.tasks.classify import training
    from fewer.tasks.classify.settings import TrainSettings

    torch.set_num_threads(1)
    began = time.process_time()
    # the accuracy as stored, with inputs in fp32, is not looked at here, and would take as long as that as trained
    with patch.object(training, "_store", lambda *_: None):
        done = training.train(opened(data), settings=TrainSettings(**settings))
    assert done.evaluation is not None
    return done.evaluation.top1, round(time.process_time() - began)


def train_row(table: Table, data: Path, options: argparse.Namespace, row: str, seed: int, **settings: Any) -> None:
    """One training, unless the table has it."""
    entry: dict[str, Any] = {
        "network": options.network,
        "row": row,
        "bits": settings.get("bits") or "fp32",
        "seed": seed,
        "start": options.start_steps,
    }
    entry |= {"steps": options.steps, "batch": options.batch, "rate": options.rate}
    entry |= {"images": options.images, "judged": options.judged}
    if entry in table:
        return
    accuracy, seconds = trained(data, recipe(options, options.steps, seed) | settings)
    table.add({**entry, "accuracy": f"{accuracy:.4f}", "cpu_seconds": seconds})


def plot(path: Path, title: str) -> None:
    """Mean and spread of every row of a table, as SVG beside it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(f"{row['network']} {row['bits']} {row['row']}", []).append(100 * float(row["accuracy"]))
    names = list(found)
    figure = Figure(figsize=(7, 0.6 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(
        [float(np.mean(found[n])) for n in names],
        range(len(names)),
        xerr=[float(np.std(found[n], ddof=1)) if len(found[n]) > 1 else 0.0 for n in names],
        fmt="o",
    )
    axes.set_yticks(range(len(names)), [f"{n} (n={len(found[n])})" for n in names])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    path.with_suffix(".svg").write_text(text.getvalue(), "utf-8")
