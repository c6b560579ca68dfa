"""Adaptation methods on simulated modalities, on real T1 -> FLAIR, and on stains of nuclei: Dice, distances, misses.

* ``simulated``: spin-echo images computed from real label maps (SynthSeg's 20 subjects), 64 x 64 axial slices of 2 mm.
  Simulated contrast, real anatomy; source and target have different subjects.
* ``flair``: real T1 (7 subjects that have T1 only) to real FLAIR (8 subjects adapt, 8 others test), axial slices of
  2 mm; labels are automatic.
* ``nuclei``: fluorescence to histology as grey pictures; rows of inverted grey values and of Otsu are to be added.

A row per benchmark, method, modules that are off, number of labels, seed and size; an interrupted table goes on.
Seconds are of a machine that did other work too, and are no measure of speed.

    PYTHONPATH=src python benchmarks/adapt.py simulated --seeds 3 --steps 300
    PYTHONPATH=src python benchmarks/adapt.py flair --methods source-only,target-oracle,curves,ours --steps 1000
    PYTHONPATH=src python benchmarks/adapt.py simulated --ablate ms-mt
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from PIL import Image
from tables import Table

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "benchmark", "method", "without", "labels", "seed", "steps", "side", "width", "cases", "dice", "low", "high",
    "missed", "spurious", "assd", "hd95", "unit", "per_class", "cpu_seconds",
)  # fmt: skip
KEYS = 8


def shared() -> Path:
    """Folder of the real data."""
    return Path(os.environ.get("FEWER_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def simulated(root: Path) -> tuple[Path, Path, Path]:
    """8 source, 6 target and 6 test subjects; four axial slices each."""
    from fewer.tasks.segment.modalities import SEQUENCES, tissues_of, write_domain

    z = np.load(shared() / "brain_label_maps" / "brain_labels_2mm.npz")
    maps: dict[str, dict[str, Any]] = {"source": {}, "target": {}, "test": {}}
    for index in range(20):
        labels = z["values"][z[f"map_{index + 1:02d}"]]
        deep = np.isin(labels, (10, 49, 11, 50, 12, 51, 13, 52))
        height = int(np.round(np.argwhere(deep)[:, 2].mean()))
        middle = np.argwhere(deep).mean(0).round().astype(int)
        part = "source" if index < 8 else "target" if index < 14 else "test"
        for number, shift in enumerate((-5, -2, 1, 4)):
            plane = labels[middle[0] - 32 : middle[0] + 32, middle[1] - 32 : middle[1] + 32, height + shift]
            maps[part][f"s{index + 1:02d}z{number}"] = tissues_of(plane)
    for seed, (part, sequence) in enumerate((("source", "t1"), ("target", "t2"), ("test", "t2"))):
        write_domain(root / part, maps[part], SEQUENCES[sequence], seed)
    return root / "source", root / "target", root / "test"


def flair(root: Path) -> tuple[Path, Path, Path]:
    """Real T1 and FLAIR; no subject is on two sides."""
    from fewer.tasks.segment.files import Picture, write_picture

    z = np.load(shared() / "brain_t1_flair" / "brains_2mm.npz")
    names = sorted(k[:-3] for k in z.files if k.endswith("_t1") and k.startswith("n"))
    paired = [n for n in names if f"{n}_flair" in z.files]
    alone = [n for n in names if n not in paired]
    classes = {str(name): index for index, name in enumerate(z["coarse_names"])}
    parts = {"source": (alone, "t1"), "target": (paired[:8], "flair"), "test": (paired[8:], "flair")}
    for part, (subjects, kind) in parts.items():
        for name in subjects:
            image, mask = z[f"{name}_{kind}"], z[f"{name}_coarse"]
            heights = np.flatnonzero((mask == 2).sum((0, 1)) > 20)  # deep grey matter; 2 cm below is the cerebellum
            for number, at in enumerate(np.linspace(heights[0] - 10, heights[-1], 8).round().astype(int)):
                place = Picture(image[None, :, :, at], (2.0, 2.0), spaced=True)
                write_picture(root / part / "images" / f"{name}_{number}.nii.gz", image[:, :, at], place)
                write_picture(root / part / "masks" / f"{name}_{number}.nii.gz", mask[:, :, at], place)
        (root / part / "classes.json").write_text(json.dumps(classes))
    return root / "source", root / "target", root / "test"


def nuclei(root: Path) -> tuple[Path, Path, Path]:
    """Fluorescence and histology as grey pictures of half the size; tiles of one kind are split in file order."""
    z = np.load(shared() / "dsb2018" / "nuclei.npz")

    def picture(kind: str, index: int) -> np.ndarray:
        raw, at = z[f"{kind}_png"].tobytes(), z[f"{kind}_offset"]
        return np.asarray(Image.open(io.BytesIO(raw[at[index] : at[index + 1]])))

    kinds = {k: np.flatnonzero(z["kind"] == k) for k in ("fluorescence", "histology")}
    half = len(kinds["histology"]) // 2
    parts = {
        "source": kinds["fluorescence"][:40],
        "target": kinds["histology"][:half],
        "test": kinds["histology"][half:],
    }
    for part, chosen in parts.items():
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True, exist_ok=True)
        for index in chosen:
            image, mask = picture("image", index), picture("mask", index) > 0
            grey = image if image.ndim == 2 else np.asarray(Image.fromarray(image[..., :3]).convert("L"))
            size = (grey.shape[1] // 2, grey.shape[0] // 2)
            Image.fromarray(grey).resize(size).save(root / part / "images" / f"c{index}.png")
            flat = Image.fromarray(mask.astype(np.uint8))
            flat.resize(size, Image.Resampling.NEAREST).save(root / part / "masks" / f"c{index}.png")
    return root / "source", root / "target", root / "test"


DATA = {"simulated": simulated, "flair": flair, "nuclei": nuclei}


def row_of(result: Any, key: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Numbers of an evaluation; the interval is over subjects, of which slices carry the name."""
    from fewer.tasks.segment.adapt_page import case_dices, interval

    total, subjects = result.overall, {}
    for case, value in case_dices(result).items():
        subjects.setdefault(case.split("_")[0].split("z")[0], []).append(value)
    values = [float(np.mean(v)) for v in subjects.values()]
    low, high = interval(values)
    classes = ";".join(f"{s.structure} {s.dice_pooled or 0:.3f}" for s in result.structures)
    shown = lambda v: "" if v is None else f"{v:.2f}"  # noqa: E731
    return {
        **key, "cases": result.cases, "dice": f"{np.mean(values):.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}",
        "missed": total.missed, "spurious": total.spurious, "assd": shown(total.assd), "hd95": shown(total.hd95),
        "unit": result.unit, "per_class": classes, "cpu_seconds": f"{seconds:.0f}",
    }  # fmt: skip


def run(
    args: argparse.Namespace, folders: tuple[Path, Path, Path], table: Table, method: str, without: str, seed: int
) -> None:
    """One row."""
    from fewer.tasks.segment.adapt import adapt
    from fewer.tasks.segment.adapt_settings import AdaptSettings

    side = {"simulated": 64, "flair": 80, "nuclei": 64}[args.benchmark]
    key = dict(
        zip(
            COLUMNS,
            (args.benchmark, method, without, args.labels or "all", seed, args.steps, side, args.width),
            strict=False,
        )
    )
    if key in table:
        return
    settings = AdaptSettings(
        method=method, without=tuple(without.split("+")) if without else (), seed=seed, steps=args.steps,
        every=max(1, args.steps // 4), width=args.width, source_labels=args.labels, translator_steps=args.translator,
        translator_width=8, translator_patch=48, patch=(side, side), augment="light", spacing="native",
    )  # fmt: skip
    source, target, test = folders
    began = process_time()
    wanted = target
    done = adapt(source, wanted, settings=settings, test=test)
    print(*done.notes, sep="\n")
    table.add(row_of(done.evaluation, key, process_time() - began))


def main() -> None:
    """Parse, make the data, run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=DATA)
    parser.add_argument("--methods", default="")
    parser.add_argument("--ablate", default="", help="switch every module of this method off in turn")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--translator", type=int, default=200)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--labels", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS / "adapt.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    from fewer.adaptation.methods import METHODS
    from fewer.adaptation.settings import MODULES

    table = Table(args.out, COLUMNS, KEYS)
    names = [name for name in args.methods.split(",") if name] or list(METHODS)
    work = [(name, "") for name in names]
    if args.ablate:
        work = [(args.ablate, ""), *((args.ablate, module) for module in MODULES)]
    with tempfile.TemporaryDirectory() as place:
        folders = DATA[args.benchmark](Path(place))
        for seed in range(args.seeds):
            for method, without in work:
                run(args, folders, table, method, without, seed)


if __name__ == "__main__":
    main()
