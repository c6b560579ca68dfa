"""Adaptation methods on simulated modalities, on real T1 -> FLAIR, and on stains of nuclei: Dice, distances, misses.

* ``simulated``: spin-echo images computed from real label maps (SynthSeg's 20 subjects), 64 x 64 axial slices, 2 mm.
  Simulated contrast, real anatomy; source and target have different subjects.
* ``flair``: real T1 (7 subjects that have T1 only) to real FLAIR (8 subjects adapt, 8 others test), axial slices of
  2 mm; labels are automatic.
* ``scanner``: real T1 of one scanner (IXI, healthy adults) to T1 of another one (elderly).
* ``flair3d``: the pair ``flair`` as volumes of 4 mm.
* ``nuclei``: fluorescence to histology as grey pictures, with rows of inverted grey values and of Otsu's threshold.
* ``simulated-back``, ``flair-back``, ``scanner-back``, ``nuclei-back``: from the second kind to the first, of other
  subjects where there are enough; and ``same``: T1 to T1 of one site. They were made after the rule of the default
  method, and chose nothing of it. So was ``hippocampus``: crops of T1 with manual labels (MSD) to T1 of the subjects
  above, whose labels are automatic and whose voxels are twice as long.

The default method leaves a row for each network that it trained (``ours: curves``), beside its own.
A row per benchmark, method, modules that are off, number of labels, seed and size; an interrupted table goes on.
Seconds are of a machine that did other work too, and are no measure of speed.

    PYTHONPATH=src python benchmarks/adapt.py simulated --seeds 0 1 2
    PYTHONPATH=src python benchmarks/adapt.py flair --methods source-only+target-oracle+curves+ours
    PYTHONPATH=src python benchmarks/adapt.py simulated --ablate ms-mt     # equal translators are trained once
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
    "benchmark", "method", "without", "labels", "seed", "steps", "patch", "width", "cases", "dice", "low", "high",
    "missed", "spurious", "assd", "hd95", "unit", "per_class", "cpu_seconds",
    "held", "curve", "mirror", "noise", "confidence", "size", "adapted", "counts",
)  # fmt: skip
KEYS = 8
SIGNS = COLUMNS[-8:-2]
"""What can be known of an adapted network without a target label, see :func:`signs`."""


def shared() -> Path:
    """Folder of the real data."""
    return Path(os.environ.get("FEWER_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def simulated(root: Path, kinds: tuple[str, str] = ("t1", "t2")) -> tuple[Path, Path, Path]:
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
    for seed, part in enumerate(maps):
        write_domain(root / part, maps[part], SEQUENCES[kinds[part != "source"]], seed)
    return root / "source", root / "target", root / "test"


def simulated_back(root: Path) -> tuple[Path, Path, Path]:
    """From T2 to T1."""
    return simulated(root, ("t2", "t1"))


def brains() -> Any:
    """Real scans of 2 mm, with automatic labels."""
    return np.load(shared() / "brain_t1_flair" / "brains_2mm.npz")


def _parts(z: Any) -> dict[str, tuple[list[str], str]]:
    """Subjects with T1 alone are the source; of those with FLAIR half adapt and half test."""
    names = sorted(k[:-3] for k in z.files if k.endswith("_t1") and k.startswith("n"))
    paired = [n for n in names if f"{n}_flair" in z.files]
    alone = [n for n in names if n not in paired]
    return {"source": (alone, "t1"), "target": (paired[:8], "flair"), "test": (paired[8:], "flair")}


def _write_slices(root: Path, parts: dict[str, tuple[list[str], str]], z: Any) -> tuple[Path, Path, Path]:
    """Eight axial slices of each subject."""
    from fewer.tasks.segment.files import Picture, write_picture

    for part, (subjects, kind) in parts.items():
        for name in subjects:
            image, mask = z[f"{name}_{kind}"], z[f"{name}_coarse"]
            heights = np.flatnonzero((mask == 2).sum((0, 1)) > 20)  # deep grey matter; 2 cm below is the cerebellum
            for number, at in enumerate(np.linspace(heights[0] - 10, heights[-1], 8).round().astype(int)):
                place = Picture(image[None, :, :, at], (2.0, 2.0), spaced=True)
                write_picture(root / part / "images" / f"{name}_{number}.nii.gz", image[:, :, at], place)
                write_picture(root / part / "masks" / f"{name}_{number}.nii.gz", mask[:, :, at], place)
        _write_classes(root / part, z)
    return root / "source", root / "target", root / "test"


def _write_classes(folder: Path, z: Any) -> None:
    classes = {str(name): index for index, name in enumerate(z["coarse_names"])}
    (folder / "classes.json").write_text(json.dumps(classes))


def flair(root: Path) -> tuple[Path, Path, Path]:
    """Real T1 and FLAIR; no subject is on two sides."""
    z = brains()
    return _write_slices(root, _parts(z), z)


def scanner(root: Path) -> tuple[Path, Path, Path]:
    """T1 of IXI, and T1 of the subjects that have FLAIR too."""
    z = brains()
    ixi = sorted(k[:-3] for k in z.files if k.endswith("_t1") and k.startswith("ixi"))
    parts = {part: (subjects, "t1") for part, (subjects, _) in _parts(z).items()}
    return _write_slices(root, parts | {"source": (ixi, "t1")}, z)


def flair_back(root: Path) -> tuple[Path, Path, Path]:
    """FLAIR to T1: the subjects that have T1 alone are adapted to."""
    z = brains()
    parts = _parts(z)
    turned = {"source": parts["target"], "target": parts["source"], "test": (parts["test"][0], "t1")}
    return _write_slices(root, turned, z)


def same(root: Path) -> tuple[Path, Path, Path]:
    """T1 to T1 of other subjects of the same site: there is next to nothing to adapt to."""
    z = brains()
    return _write_slices(root, {part: (subjects, "t1") for part, (subjects, _) in _parts(z).items()}, z)


def scanner_back(root: Path) -> tuple[Path, Path, Path]:
    """T1 of the elderly to T1 of IXI: five subjects adapt, and five others test."""
    z = brains()
    ixi = sorted(k[:-3] for k in z.files if k.endswith("_t1") and k.startswith("ixi"))
    parts = _parts(z)
    return _write_slices(root, {"source": parts["source"], "target": (ixi[:5], "t1"), "test": (ixi[5:], "t1")}, z)


def hippocampus(root: Path) -> tuple[Path, Path, Path]:
    """MSD's crops at 1 mm, 24 cases, to crops of the same size around the hippocampi of 8 and 8 subjects."""
    from scipy.ndimage import zoom

    from fewer.tasks.segment.files import Picture, write_picture

    def write(part: str, name: str, image: np.ndarray, mask: np.ndarray) -> None:
        heights = np.flatnonzero(mask.any((0, 1)))
        for number, at in enumerate(np.linspace(heights[0] + 1, heights[-1] - 1, 4).round().astype(int)):
            place = Picture(image[None, :, :, at], (1.0, 1.0), spaced=True)
            for kind, volume in (("images", image), ("masks", mask)):
                write_picture(root / part / kind / f"{name}_{number}.nii.gz", volume[:, :, at].astype(np.uint8), place)

    z = np.load(shared() / "msd_hippocampus" / "hippocampus.npz")
    for index in range(24):
        volume = slice(*z["offset"][index : index + 2])
        image, mask = (z[kind][volume].reshape(z["shape"][index]) for kind in ("image", "label"))
        write("source", f"m{index}", image, mask > 0)
    z, half = brains(), np.array([9, 13, 9])
    parts = _parts(z)
    for part in ("target", "test"):
        for name in parts[part][0]:
            for side in (47, 48):
                mask = z["roi_values"][z[f"{name}_roi"]] == side
                middle = np.argwhere(mask).mean(0).round().astype(int)
                box = tuple(slice(max(0, m - h), m + h) for m, h in zip(middle, half, strict=True))
                write(part, f"{name}s{side}", zoom(z[f"{name}_t1"][box], 2, order=1), zoom(mask[box], 2, order=0))
    for part in ("source", "target", "test"):
        (root / part / "classes.json").write_text('{"background": 0, "hippocampus": 1}')
    return root / "source", root / "target", root / "test"


def flair3d(root: Path) -> tuple[Path, Path, Path]:
    """The pair ``flair`` as volumes; blocks of two voxels along each axis are averaged."""
    from fewer.tasks.segment.files import Picture, write_picture

    z = brains()
    for part, (subjects, kind) in _parts(z).items():
        for name in subjects:
            even = tuple(slice(0, n // 2 * 2) for n in z[f"{name}_{kind}"].shape)
            image, mask = z[f"{name}_{kind}"][even].astype(np.float32), z[f"{name}_coarse"][even][1::2, 1::2, 1::2]
            image = (
                image.reshape([n for half in mask.shape for n in (half, 2)]).mean((1, 3, 5)).round().astype(np.uint8)
            )
            place = Picture(image[None], (4.0, 4.0, 4.0), spaced=True)
            write_picture(root / part / "images" / f"{name}.nii.gz", image, place)
            write_picture(root / part / "masks" / f"{name}.nii.gz", mask, place)
        _write_classes(root / part, z)
    return root / "source", root / "target", root / "test"


def _groups(images: list[np.ndarray]) -> list[int]:
    """Tiles that were cut from one picture, by borders that continue each other: a number for each tile."""
    group = list(range(len(images)))
    flat = [[edge - edge.mean() for edge in (x[:, -1], x[:, 0], x[-1], x[0])] for x in images]
    for i, one in enumerate(flat):
        for j, other in enumerate(flat):
            for here, there in ((0, 1), (2, 3)):  # right beside left, bottom beside top
                a, b = one[here], other[there]
                alike = i != j and len(a) == len(b) and (a * b).sum() > 0.9 * np.sqrt((a**2).sum() * (b**2).sum())
                if alike:
                    group = [group[j] if g == group[i] else g for g in group]
    return group


def nuclei(root: Path, back: bool = False) -> tuple[Path, Path, Path]:
    """Fluorescence and histology as grey pictures of half the size; no histology picture is on two sides."""
    z = np.load(shared() / "dsb2018" / "nuclei.npz")

    def picture(kind: str, index: int) -> np.ndarray:
        raw, at = z[f"{kind}_png"].tobytes(), z[f"{kind}_offset"]
        image = np.asarray(Image.open(io.BytesIO(raw[at[index] : at[index + 1]])))
        return image if image.ndim == 2 else np.asarray(Image.fromarray(image[..., :3]).convert("L"))

    kinds = {k: np.flatnonzero(z["kind"] == k) for k in ("fluorescence", "histology")}
    group = _groups([picture("image", i).astype(float) for i in kinds["histology"]])
    order = sorted(range(len(group)), key=lambda i: (group[i], i))
    half = len(order) // 2
    while group[order[half]] == group[order[half - 1]]:
        half += 1
    histology = kinds["histology"][order]
    bright = kinds["fluorescence"]
    parts = {"source": bright[:40], "target": histology[:half], "test": histology[half:]}
    if back:
        parts = {"source": histology[:half], "target": bright[:40], "test": bright[40:80]}
    for part, chosen in parts.items():
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True, exist_ok=True)
        for index in chosen:
            grey, mask = picture("image", index), picture("mask", index) > 0
            size = (grey.shape[1] // 2, grey.shape[0] // 2)
            Image.fromarray(grey).resize(size).save(root / part / "images" / f"c{index}.png")
            flat = Image.fromarray(mask.astype(np.uint8))
            flat.resize(size, Image.Resampling.NEAREST).save(root / part / "masks" / f"c{index}.png")
    return root / "source", root / "target", root / "test"


def nuclei_back(root: Path) -> tuple[Path, Path, Path]:
    """Histology to fluorescence."""
    return nuclei(root, back=True)


DATA = {
    "simulated": simulated, "flair": flair, "scanner": scanner, "flair3d": flair3d, "nuclei": nuclei,
    "simulated-back": simulated_back, "flair-back": flair_back, "scanner-back": scanner_back,
    "nuclei-back": nuclei_back, "same": same,
    "hippocampus": hippocampus,
}  # fmt: skip
PATCH = {name: (64, 80) for name in DATA} | {name: (64, 64) for name in DATA if name[:3] in ("sim", "nuc")}
PATCH |= {"flair3d": (24, 32, 24), "hippocampus": (32, 48)}
EXTRA = {"nuclei": ["source-only, inverted", "otsu"]}
"""Rows beside the methods: bright and dark exchanged at the test, and a threshold without any training."""


def row_of(result: Any, key: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Numbers of an evaluation; Dice is pooled over all voxels, and the interval is over subjects.

    ``counts`` has ``2 TP / (FP + FN)`` of each subject and class, from which intervals over seeds can be drawn.
    """
    total, subjects = result.overall, {}
    for score in result.scores:  # slices carry the name of their subject
        subject = subjects.setdefault(score.case.split("_")[0].split("z")[0].split("s4")[0], {})
        counts = np.array([2 * score.true_positive, score.false_positive + score.false_negative])
        subject[score.structure] = subject.get(score.structure, 0) + counts
    names = list(dict.fromkeys(score.structure for score in result.scores))
    counts = np.array([[subject.get(name, np.zeros(2)) for name in names] for subject in subjects.values()])
    draws = np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))

    def dice(chosen: np.ndarray) -> np.ndarray:
        both, wrong = np.moveaxis(chosen.sum(-3), -1, 0)
        return both / np.maximum(both + wrong, 1)

    low, high = np.percentile(dice(counts[draws]).mean(-1), (2.5, 97.5))
    classes = ";".join(f"{name} {value:.3f}" for name, value in zip(names, dice(counts), strict=True))
    shown = lambda v: "" if v is None else f"{v:.2f}"  # noqa: E731
    told = (" ".join(f"{both}/{wrong}" for both, wrong in subject) for subject in counts.astype(int).tolist())
    return {
        **key, "cases": result.cases, "dice": f"{dice(counts).mean():.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}",
        "missed": total.missed, "spurious": total.spurious, "assd": shown(total.assd), "hd95": shown(total.hd95),
        "unit": result.unit, "per_class": classes, "cpu_seconds": f"{seconds:.0f}",
        "counts": ";".join(told),
    }  # fmt: skip


def signs(done: Any) -> dict[str, str]:
    """What can be known of an adapted network without a target label, from 24 target images, each from 0 to 1.

    ``held`` is the Dice of held-out source images as they are. Then the Dice between predictions of target images and
    of copies: with a random intensity ``curve``, as a ``mirror`` image, with ``noise``. ``confidence`` is the mean
    probability of what is found; ``size`` says how alike the mean sizes of structures are in predictions of the target
    and in source masks.
    """
    from fewer.adaptation.choice import pooled_dice
    from fewer.adaptation.style import random_curve
    from fewer.tasks.segment.adapt import make_problem

    p, model = make_problem(done.plan), done.model
    count, looked_at = len(p.classes), p.target[:: -(-len(p.target) // 24)]

    def guesses(change: Any) -> list[torch.Tensor]:
        return [p.logits(model, change(x, np.random.default_rng([11, i]))).argmax(0) for i, x in enumerate(looked_at)]

    def shares(masks: Any) -> np.ndarray:
        return np.array([[float((m == v).float().mean()) for v in range(1, count)] for m in masks]).mean(0)

    softmax = [p.logits(model, x).softmax(0) for x in looked_at]
    plain = [q.argmax(0) for q in softmax]
    noise = lambda x, rng: x + 0.2 * torch.from_numpy(rng.standard_normal(tuple(x.shape))).float()  # noqa: E731
    copies = {
        "curve": guesses(lambda x, rng: random_curve(x, None, rng)),
        "mirror": [m.flip(0) for m in guesses(lambda x, rng: x.flip(1))],
        "noise": guesses(noise),
    }
    found = {name: pooled_dice(list(zip(plain, other, strict=True)), count) for name, other in copies.items()}
    found["held"] = pooled_dice([(p.logits(model, x).argmax(0), y) for x, y in p.held if y is not None], count)
    sure = [float(q.max(0)[0][g > 0].mean()) if (g > 0).any() else 0.0 for q, g in zip(softmax, plain, strict=True)]
    found["confidence"] = float(np.mean(sure))
    here, there = shares(plain), shares(y for _, y in (*p.source, *p.held))
    found["size"] = float(np.mean(np.minimum(here, there) / np.maximum(np.maximum(here, there), 1e-9)))
    return {name: f"{value:.4f}" for name, value in found.items()}


def member_rows(done: Any, key: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """A row for each network of the default method, with what the choice knew of it; seconds are of all together."""
    names = {"held": "held-out source", "curve": "agreement", "mirror": "mirror", "size": "sizes"}
    found = []
    for member in done.adapted.members:
        row = row_of(done.members[member.name], key | {"method": f"ours: {member.name}"}, seconds)
        found.append(row | {column: f"{member.signs[sign]:.4f}" for column, sign in names.items()})
    return found


def adapted_dice(done: Any, target: Path) -> str:
    """Dice on the very scans that were adapted to, with their masks: what forms of a method are chosen by."""
    from fewer.tasks.segment.dataset import open_data
    from fewer.tasks.segment.scoring import evaluate_cases

    data = open_data(target)
    result = evaluate_cases(done.model, data, data.cases, done.plan.domains.preparation)
    return row_of(result, {}, 0.0)["dice"]


def inverted(test: Path) -> Path:
    """The test pictures with bright and dark exchanged."""
    out = test.with_name("test_inverted")
    for path in [] if out.exists() else sorted(test.rglob("*.png")):
        (out / path.parent.name).mkdir(parents=True, exist_ok=True)
        image = np.asarray(Image.open(path))
        Image.fromarray(255 - image if path.parent.name == "images" else image).save(out / path.parent.name / path.name)
    return out


def otsu(test: Path) -> Any:
    """Dark pixels by Otsu's threshold, each picture by itself, without any training."""
    from fewer.tasks.segment.dataset import open_data
    from fewer.tasks.segment.scoring import evaluate_folder

    out = test.with_name("otsu")
    out.mkdir(exist_ok=True)
    for path in sorted((test / "images").iterdir()):
        image = np.asarray(Image.open(path))
        count = np.bincount(image.ravel(), minlength=256).astype(float)
        below, sums = count.cumsum(), (count * np.arange(256)).cumsum()
        gap = sums[-1] * below - sums * below[-1]
        between = gap**2 / np.maximum(below * (below[-1] - below), 1)
        Image.fromarray((image <= between.argmax()).astype(np.uint8)).save(out / path.name)
    return evaluate_folder(out, open_data(test))


def run(
    args: argparse.Namespace, folders: tuple[Path, Path, Path], table: Table, method: str, without: str, seed: int
) -> None:
    """One row."""
    from fewer.tasks.segment.adapt import adapt
    from fewer.tasks.segment.adapt_settings import AdaptSettings

    patch = PATCH[args.benchmark]
    size = "x".join(map(str, patch))
    values = (args.benchmark, method, without, args.labels or "all", seed, args.steps, size, args.width)
    key: dict[str, Any] = dict(zip(COLUMNS, values, strict=False))
    if key in table:
        return
    source, target, test = folders
    began = process_time()
    if method == "otsu":
        table.add(row_of(otsu(test), key, process_time() - began))
        return
    settings = AdaptSettings(
        method=method.split(",")[0], without=tuple(without.split("+")) if without else (), seed=seed, steps=args.steps,
        every=max(1, args.steps // 4), width=args.width, source_labels=args.labels, translator_steps=args.translator,
        translator_width=8, translator_patch=48, patch=patch, spacing="native",
    )  # fmt: skip
    done = adapt(source, target, settings=settings, test=inverted(test) if "inverted" in method else test)
    print(*done.notes, sep="\n")
    for row in member_rows(done, key, process_time() - began):
        if row not in table:
            table.add(row)
    row = row_of(done.evaluation, key, process_time() - began)
    if done.members:
        table.add(row)
        return
    row["adapted"] = adapted_dice(done, target)
    table.add(row if method == "target-oracle" else row | signs(done))


def train_translators_once() -> None:
    """Let rows of an ablation share what is the same: a translator depends on its own modules and the seed alone."""
    from fewer.adaptation import le_uda, ms_mt

    def once(train: Any) -> Any:
        known: dict[tuple[Any, ...], Any] = {}

        def run(problem: Any, settings: Any, work: Any, *more: Any) -> Any:
            key = (settings.uses("segmentation-heads"), settings.uses("edges"), settings.seed)
            if key not in known:
                known[key] = train(problem, settings, work, *more)
            return known[key]

        return run

    ms_mt.train_cut, le_uda.train_cyclegan = once(ms_mt.train_cut), once(le_uda.train_cyclegan)


def main() -> None:
    """Parse, make the data, run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=DATA)
    parser.add_argument("--methods", default="", help="with + between them")
    parser.add_argument("--ablate", default="", help="switch every module of this method off in turn")
    parser.add_argument("--modules", default="", help="of the ablation, with + between them; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--translator", type=int, default=200)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--labels", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS / "adapt.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    from fewer.adaptation.methods import METHODS
    from fewer.adaptation.settings import MODULES_OF
    from fewer.core.stamp import environment

    table = Table(args.out, COLUMNS, KEYS)
    stamp = args.out.with_suffix(".json")
    stamp.write_text(json.dumps(environment(threads=1), indent=1) + "\n", "utf-8")
    names = [name for name in args.methods.split("+") if name] or [*METHODS, *EXTRA.get(args.benchmark, [])]
    work = [(name, "") for name in names]
    if args.ablate:
        modules = [name for name in args.modules.split("+") if name] or MODULES_OF[args.ablate]
        work = [(args.ablate, ""), *((args.ablate, module) for module in modules)]
        train_translators_once()
    with tempfile.TemporaryDirectory() as place:
        folders = DATA[args.benchmark](Path(place))
        for seed in args.seeds:
            for method, without in work:
                run(args, folders, table, method, without, seed)


if __name__ == "__main__":
    main()
