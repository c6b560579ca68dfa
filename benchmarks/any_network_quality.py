"""Quality on networks of which the library knows nothing: simple methods beside ours, judged on another source.

Calibration images come from scikit-image and scikit-learn; the result is judged on foolbox's photos. The CIFAR networks
are calibrated on photos shrunk to 32 x 32 (``photos``), or on training images (``cifar``), and judged on labelled test
images. Networks that read are calibrated on words written over photos and judged on scanned pages (``text``). Rivals:
magnitude and LAMP without data, SparseGPT with a uniform ratio and with LAMP's ratios, each as it is and with BatchNorm
statistics estimated again on the calibration images. ``dense`` is the network as it came.

    OMP_NUM_THREADS=1 python benchmarks/any_network_quality.py       # goes on where it stopped; --fresh starts anew
    python benchmarks/any_network_quality.py --plot                  # only the picture, from the CSV
    python benchmarks/any_network_quality.py --table                 # a Markdown table for the docs

``error`` is the relative output error on the judging images, ``agreement`` the share of images with the dense
network's first class (for maps and features: the cosine), ``top1`` the share that is right where labels are known.
``heldout`` and ``forecast`` are what our own run says about itself.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rivals import global_in_place, in_order_at, lamp_shares
from tables import Table
from text_lines import scanned, written
from torch import Tensor, nn
from unseen import NETWORKS, Absent, shared

from fewer.data.images import load_images
from fewer.data.photos import labelled_photos, real_photos
from fewer.data.preprocess import Preprocess
from fewer.engine.judge import Judge
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.settings import Settings
from fewer.models.spec import LoadedModel
from fewer.reports import environment
from fewer.verbs.compress import compress

HERE = Path(__file__).parent / "results"
COLUMNS = (
    "network", "calibrated_on", "budget", "seed", "method", "error", "agreement", "top1", "kept", "heldout",
    "forecast", "chosen", "cpu_seconds",
)  # fmt: skip
RIVALS = ("magnitude", "lamp", "sparsegpt-uniform", "sparsegpt-lamp")
BUDGETS = (0.9, 0.5, 0.3)


def normalised(images: np.ndarray, how: Preprocess) -> Tensor:
    """uint8 images [N, H, W, channels] as the network wants them."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(how.mean).view(1, -1, 1, 1)) / torch.tensor(how.std).view(1, -1, 1, 1)


def cifar(part: str, count: int, how: Preprocess, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and labels of CIFAR-10 as JPEG files."""
    with np.load(shared(f"cifar10/{part}.npz"), allow_pickle=False) as file:
        raw, offset, label = file["jpeg"].tobytes(), file["offset"], file["label"]
    chosen = np.random.default_rng(seed).permutation(len(label))[:count]
    images = [np.asarray(Image.open(io.BytesIO(raw[offset[i] : offset[i + 1]]))) for i in chosen]
    return normalised(np.stack(images), how), torch.from_numpy(label[chosen].astype(np.int64))


def lines(make: Callable[..., list[Image.Image]], count: int, how: Preprocess, seed: int) -> Tensor:
    """Pictures of text as a network wants them."""
    found = make(count, how.input_size[1:], seed)
    if how.input_size[0] == 1:
        return normalised(np.stack([np.asarray(p.convert("L"))[..., None] for p in found]), how)
    return normalised(np.stack([np.asarray(p) for p in found]), how)


def judged_on(kind: str, loaded: LoadedModel, count: int) -> tuple[Tensor, Tensor | None]:
    """The judging images, of another source than any that calibrates, and their labels."""
    if kind == "cifar":
        return cifar("test", max(200, count), loaded.preprocess, seed=1)
    if kind == "text":
        return lines(scanned, count, loaded.preprocess, seed=1), None
    photos = labelled_photos()
    found = load_images([p.path for p in photos], count, 0, loaded.preprocess, crops=None)
    label = {p.path: p.label for p in photos}
    labels = torch.tensor([label[f] for f in found.files]) if loaded.task == "classify" else None
    return found.tensor, labels


def calibrated_on(source: str, loaded: LoadedModel, settings: Settings):
    """What a user would give: files, or a tensor of training images."""
    if source == "cifar":
        return cifar("train", settings.calibration + settings.heldout, loaded.preprocess, settings.seed)[0]
    if source == "text":
        return lines(written, settings.calibration + settings.heldout, loaded.preprocess, settings.seed)
    return [p.path for p in real_photos() if p.package != "foolbox"]


def reestimated(model: nn.Module, prepared: Prepared) -> nn.Module:
    """BatchNorm statistics of the calibration images, in place of those of training."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    with torch.no_grad():
        for batch in prepared.calibration.split(32):
            model(batch.batch())
    return model.eval()


def rival(prepared: Prepared, method: str, share: float) -> nn.Module:
    """A network made by a simple method."""
    if method in ("magnitude", "lamp"):
        return global_in_place(prepared, method, 1 - share)
    ratios = lamp_shares(prepared, share) if method.endswith("lamp") else {}
    return in_order_at(prepared, "sparsegpt", "unstructured", lambda unit: 1 - ratios.get(unit, share))


class Judging:
    """Error, agreement and top-1 on the judging images."""

    def __init__(self, loaded: LoadedModel, images: Tensor, labels: Tensor | None) -> None:
        self.judge = Judge(loaded.model, images, batch=16, task=loaded.task)
        self.images, self.labels = images, labels

    def row(self, model: nn.Module) -> dict[str, str]:
        """The columns that are measured."""
        quality = self.judge.judge(model)
        row = {"error": f"{quality.distortion:.6g}", "agreement": f"{quality.value:.5f}"}
        if self.labels is not None:
            with torch.no_grad():
                got = torch.cat([model(b).argmax(1) for b in self.images.split(16)])
            row["top1"] = f"{float((got == self.labels).double().mean()):.5f}"
        return row


def kept(model: nn.Module, prepared: Prepared) -> str:
    """Share of the weights of all units that is left."""
    units = prepared.matched.units
    left = sum(int(model.get_submodule(u.name).weight.count_nonzero()) for u in units)  # type: ignore[union-attr]
    return f"{left / sum(u.numel for u in units):.5f}"


def run_network(table: Table, name: str, source: str, seed: int, args: argparse.Namespace) -> None:
    """All rows of one network and one set of calibration images."""
    network = NETWORKS[name]
    loaded = network.load()
    if args.size and network.images == "photos" and loaded.preprocess.input_size[1] > args.size:
        how = replace(loaded.preprocess, input_size=(3, args.size, args.size))
        loaded = replace(loaded, preprocess=how)
    # baselines and the check of additivity would cost time and steer nothing
    settings = Settings(
        seed=seed, calibration=args.calibration, heldout=args.heldout, sensing=args.sensing, baselines=(), additivity=0
    )
    key = {"network": name, "calibrated_on": source, "seed": seed}
    images = calibrated_on(source, loaded, settings)
    prepared = prepare(loaded, images, settings)
    judging = Judging(loaded, *judged_on(network.images, loaded, args.judged))
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in loaded.model.modules())

    def add(budget: float, method: str, work: Callable[[], tuple[nn.Module, dict[str, str]]]) -> None:
        row = {**key, "budget": budget, "method": method}
        if row in table:
            return
        began = time.process_time()
        model, facts = work()
        spent = time.process_time() - began
        table.add({**row, **judging.row(model), **facts, "kept": kept(model, prepared), "cpu_seconds": f"{spent:.1f}"})

    made: dict[tuple[str, float], nn.Module] = {}

    def simple(method: str, share: float) -> tuple[nn.Module, dict[str, str]]:
        name, _, again = method.partition("+")
        if (name, share) not in made:
            made.clear()
            made[name, share] = rival(prepared, name, share)
        model = made[name, share]
        return reestimated(copy.deepcopy(model), prepared) if again else model, {}

    add(1.0, "dense", lambda: (loaded.model, {}))
    for share in args.budgets:
        for method in [m + again for m in RIVALS for again in (("", "+bn") if norms else ("",))]:
            add(share, method, partial(simple, method, share))
        add(share, args.ours, partial(ours, loaded, images, settings, share))


def ours(loaded: LoadedModel, images, settings: Settings, share: float) -> tuple[nn.Module, dict[str, str]]:
    """What ``fewer compress`` makes, and what it says about itself."""
    run = compress(copy.copy(loaded), images, f"weights={100 * share:g}%", settings=settings)
    facts = {
        "heldout": f"{run.report.verdict.distortion:.6g}",
        "forecast": f"{run.plan.distortion:.6g}",
        "chosen": run.plan.method,
    }
    return run.model, facts


def cells(args: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Seed 0 of everything first, so that an interrupted run is as wide as can be."""
    found = []
    for seed in args.seeds:
        for name in args.networks:
            sources = {"cifar": ("photos", "cifar"), "text": ("text",)}.get(NETWORKS[name].images, ("photos",))
            found += [(name, source, seed) for source in sources]
    return found


def read(path: Path) -> list[dict[str, str]]:
    """Rows of the CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def means(rows: list[dict[str, str]], column: str) -> dict[str, tuple[float, float]]:
    """Method -> mean over seeds and half of the range."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row[column]:
            found.setdefault(row["method"], []).append(float(row[column]))
    return {m: (sum(v) / len(v), (max(v) - min(v)) / 2) for m, v in found.items()}


def show(path: Path) -> None:
    """Ours beside the best rival of each cell, by error, agreement and top-1."""
    rows = read(path)
    print("| network | calibrated on | kept | seeds | ours: error | best rival: error | ours: agreement | best rival |")
    print("|---" * 8 + "|")
    for cell in sorted({(r["network"], r["calibrated_on"], r["budget"]) for r in rows if r["method"] != "dense"}):
        chosen = [r for r in rows if (r["network"], r["calibrated_on"], r["budget"]) == cell]
        error, agreement = means(chosen, "error"), means(chosen, "agreement")
        if "ours" not in error:
            continue
        others = {m: v for m, v in error.items() if m != "ours"}
        low = min(others, key=lambda m: others[m][0])
        high = max((m for m in agreement if m != "ours"), key=lambda m: agreement[m][0])
        seeds = len({r["seed"] for r in chosen})
        print(
            f"| {cell[0]} | {cell[1]} | {100 * float(cell[2]):.0f} % | {seeds} | {told(error['ours'])} | {low}: "
            f"{told(error[low])} | {agreement['ours'][0]:.3f} | {high}: {agreement[high][0]:.3f} |"
        )


def told(value: tuple[float, float]) -> str:
    """A mean and half of the range over the seeds."""
    return f"{value[0]:.3g} ± {value[1]:.1g}" if value[1] else f"{value[0]:.3g}"


def plot(path: Path) -> None:
    """One panel per network: error against what is kept."""
    from matplotlib.figure import Figure

    rows = read(path)
    panels = sorted({(r["network"], r["calibrated_on"]) for r in rows})
    if not panels:
        return
    figure = Figure(figsize=(4.2 * len(panels), 4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        here = [r for r in rows if (r["network"], r["calibrated_on"]) == panel and r["method"] != "dense"]
        for method in sorted({r["method"] for r in here}):
            budgets = sorted({float(r["budget"]) for r in here if r["method"] == method})
            values = [
                means([r for r in here if float(r["budget"]) == b], "error")[method][0] for b in budgets
            ]  # fmt: skip
            style = {"linewidth": 2.5, "color": "black"} if method == "ours" else {"linewidth": 1, "alpha": 0.8}
            axes.plot([100 * b for b in budgets], values, marker="o", markersize=3, label=method, **style)
        axes.set(yscale="log", title=f"{panel[0]}\ncalibrated on {panel[1]}", xlabel="weights kept, %")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("relative output error, other images")
    figure.axes[0].legend(fontsize=6)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--plot", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--networks", nargs="*", default=["resnet20", "efficientnet-lite0", "mobilenet-v2"])
    parser.add_argument("--budgets", nargs="*", type=float, default=list(BUDGETS))
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--sensing", type=int, default=16)
    parser.add_argument("--heldout", type=int, default=32)
    parser.add_argument("--judged", type=int, default=40, help="crops of the judging photos; at least 200 of CIFAR-10")
    parser.add_argument("--size", type=int, default=0, help="side of the photos at most; 0: as it is")
    parser.add_argument("--ours", default="ours", help="what to call our rows")
    parser.add_argument("--out", type=Path, default=HERE / "any_network_quality.csv")
    args = parser.parse_args()
    if args.table:
        show(args.out)
        return
    if not args.plot:
        table = Table(args.out, COLUMNS, 5, args.fresh)
        stamp = args.out.with_suffix(".json")
        said = {k: v.name if isinstance(v, Path) else str(v) for k, v in vars(args).items()}
        facts = environment(threads=torch.get_num_threads()) | {"arguments": said}
        stamp.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        for name, source, seed in cells(args):
            try:
                run_network(table, name, source, seed, args)
            except Absent as reason:
                print(f"# {name} is left out: {reason}", flush=True)
    plot(args.out)


if __name__ == "__main__":
    main()
