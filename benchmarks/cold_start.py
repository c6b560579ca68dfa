"""Which images should be labelled first? Cold-start methods beside each other on five pools.

* ``elpv, dinov2-small`` and ``elpv, mobilenet-v2``: 2,624 real electroluminescence images of solar cells. A logistic
  regression on the frozen features of the chosen cells says whether a cell is defective (grade 2 or 3); score: accuracy
  on the held-out quarter; second score: area under its ROC curve.
* ``lesions, dinov2-small``: 800 *simulated* skin lesions of 40 looks of uneven frequency, grown from real dermoscopy
  patches. A logistic regression on the frozen patch tokens of the chosen images segments them; score: mean Dice on the
  held-out quarter, missed lesions counted as 0; second score: the share of held-out lesions with a Dice above 0.8.
* ``lesions, trained U-Net``: the same images and the same vectors for choosing, but the chosen images train a small
  U-Net (``cold_start_unet.py``: 64 x 64 pixels, 300 steps whatever the budget); score: mean Dice of the held-out
  quarter. One training takes 5 to 10 s on a core, so there are fewer seeds, one draw of the random choice per seed,
  and small budgets go first.
* ``mnist, mobilenet-v2``: 3,000 MNIST digits at 96 pixels, features of a network for photos; a logistic regression
  tells the ten digits; score: accuracy; second score: mean of the ten accuracies.

The settings of ``coverage`` were chosen on other splits of the three pools above (seeds 100 to 107). What it does up to
24 labels had been tried before on seeds 0 to 9 of all pools but elpv with DINOv2-small; the step for more labels never
on MNIST. ``foreground-random`` makes no sense there: every picture shows a digit.

``saal`` gets the shuffled features without the corruption: each row of its table is a random image either way. The
methods ``... in 2 rounds`` choose half of the budget by coverage, train the probe on those labels, and choose the rest
knowing its uncertainty (``coverage``, ``entropy``) or not (``plain coverage``); classification pools only. In
``leaning coverage in 2 rounds`` uncertainty counts three times as much as by default; that factor was the best of four
on seeds 100 to 107.

Every seed draws its own pool and held-out quarter, so that methods without chance vary too, and all methods of a seed
see the same pool. Where 50 labels tell methods apart least there are 20 seeds (all methods with DINOv2-small; random,
coverage and TypiClust on elpv with MobileNetV2), else 10. Random is the mean of three draws but for the trained pool.
Intervals are 95 % (Student's t) of the paired difference over seeds.

Seeds from 20 on of elpv with DINOv2-small are a *blind* set: all settings of all methods were frozen before any of them
was drawn, and none was changed after. They were drawn in two lots, 20 to 59 and 60 to 99; in between another kernel
was tried for ``coverage`` and given up (``cold_start_kernels.py``). The summary has the blind seeds by themselves
(``set`` is ``blind``; ``first blind`` are 20 to 59) and with all others (``all``).

    python benchmarks/cold_start.py              # goes on where it stopped
    python benchmarks/cold_start.py --summary    # only the table and the picture, from the CSV
    python benchmarks/cold_start.py --pools "elpv dinov2-small" --seeds 20-99 --budgets 50   # some cases only
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fewer.reports import environment
from fewer.selection.coverage import select_coverage
from fewer.selection.methods import choose
from fewer.selection.pool import Pool
from fewer.selection.uncertainty import probe_predictions

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
RESULTS = HERE / "results"
COLUMNS = ("pool", "features", "method", "budget", "seed", "labels", "score", "second", "seconds")
BUDGETS = (10, 20, 50, 100)
METHODS = (
    *("random", "coverage", "foreground-random", "kcenter", "typiclust", "probcover"),
    *("saal", "saal-corrected"),
)
RIVALS = ("typiclust", "probcover", "kcenter")
ROUNDS = (
    *("coverage in 2 rounds", "plain coverage in 2 rounds"),
    *("leaning coverage in 2 rounds", "entropy in 2 rounds"),
)
SETS = {"all": range(10**6), "blind": range(20, 10**6), "first blind": range(20, 60)}
BLIND = ("elpv", "dinov2-small")  # the pool of which seeds from 20 on were drawn after all settings were frozen
TRAINED = "trained U-Net"  # in the place of features, for the pool that is judged by a training


@dataclass
class Data:
    """One pool: vectors for choosing, foreground shares, and how a choice is judged."""

    vectors: np.ndarray
    foreground: np.ndarray
    judge: Callable[[np.ndarray, np.ndarray, int], tuple[float, float]]
    """``judge(rows of the training set, rows of the test set, seed)``"""
    labels: np.ndarray | None = None
    """Classes, where there are any: for a second round."""
    draws: int = 3
    """Of a random method per seed; their mean is its score."""


def cached(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is made once."""
    path = CACHE / f"{name}.npy"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        array = make()
        np.save(path.with_suffix(".part.npy"), array)
        path.with_suffix(".part.npy").replace(path)
    return np.load(path, mmap_mode="r")


def elpv(model: str) -> Data:
    """Real solar cells and a linear probe."""
    from fewer.data.decode import read_image
    from fewer.selection.embed import EmbedJob, embed
    from fewer.selection.foreground import foreground_share
    from fewer.tasks.classify.sets import elpv_cells

    cells = [*elpv_cells("train"), *elpv_cells("test")]
    root = cells[0][0].parent
    names = [path.relative_to(root).as_posix() for path, _ in cells]

    def vectors() -> np.ndarray:
        CACHE.mkdir(exist_ok=True)
        done = embed(EmbedJob(root, f"fewer/{model}"), names, CACHE / f"elpv-{model}.f32", advance=told)
        return np.array(done.vectors)

    features = np.array(cached(f"elpv-{model}", vectors))
    share = cached("elpv-foreground", lambda: np.array([foreground_share(read_image(path)) for path, _ in cells]))
    defective = np.array([grade >= 2 for _, grade in cells]).astype(int)
    return Data(features, np.array(share), lambda train, test, _: classify(features, defective, train, test), defective)


def mnist() -> Data:
    """Handwritten digits, with the features of a network that has never seen any."""

    def vectors() -> np.ndarray:
        import torch

        from fewer.data.preprocess import Preprocess
        from fewer.models.spec import load_model
        from fewer.selection.extract import extractor
        from fewer.tasks.classify.sets import load_mnist

        size = Preprocess((1, 96, 96), mean=0.45, std=0.225, crop=1.0, interpolation="bilinear")
        digits = load_mnist("train", 3000, 0, size)
        extract = extractor(load_model("fewer/mobilenet-v2").model, torch.zeros(1, 3, 96, 96))
        parts = []
        for batch in digits.images.split(50):
            parts.append(extract(batch.expand(-1, 3, -1, -1)))
            told(len(batch), "mnist")
        return np.hstack([np.concatenate(parts), digits.labels[:, None].numpy()]).astype(np.float32)

    table = np.array(cached("mnist-mobilenet-v2", vectors))
    features, labels = table[:, :-1], table[:, -1].astype(int)
    share = np.full(len(labels), 0.2, np.float32)  # every picture shows a digit
    return Data(features, share, lambda train, test, _: classify(features, labels, train, test), labels)


def classify(features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Accuracy, and ROC area (two classes) or mean accuracy over classes, of a logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    mean, spread = features[train].mean(0), features[train].std(0) + 1e-3
    if len(set(labels[train])) < 2:  # one class only: the probe can only ever say that one
        return float((labels[test] == labels[train][0]).mean()), 0.5
    probe = LogisticRegression(C=0.01, max_iter=300).fit((features[train] - mean) / spread, labels[train])
    if labels.max() > 1:
        found = probe.predict((features[test] - mean) / spread)
        return float((found == labels[test]).mean()), float(balanced_accuracy_score(labels[test], found))
    chance = probe.predict_proba((features[test] - mean) / spread)[:, 1]
    return float(((chance > 0.5) == labels[test]).mean()), float(roc_auc_score(labels[test], chance))


@lru_cache(maxsize=1)
def lesion_pictures() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of the simulated pool."""
    from fewer.tasks.segment.simulate import Lesions

    drawn = Lesions(count=800, looks=40, skew=1.0, difficulty=0.5, seed=0)
    return [drawn.draw(row) for row in range(drawn.count)]


def lesion_vectors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, masks and foreground shares of the simulated pool."""
    from PIL import Image

    from fewer.selection.foreground import foreground_share

    def shares() -> np.ndarray:
        return np.array([foreground_share(Image.fromarray(image)) for image, _ in lesion_pictures()])

    tokens = cached("lesions-tokens", lambda: lesion_tokens([image for image, _ in lesion_pictures()]))
    masks = cached("lesions-masks", lambda: np.stack([mask for _, mask in lesion_pictures()]))
    return tokens, np.array(masks), np.array(cached("lesions-foreground", shares))


def lesions() -> Data:
    """Simulated lesions and a patch-wise probe."""
    tokens, masks, share = lesion_vectors()
    probe = PatchProbe(np.asarray(tokens[:, 1:], np.float32), masks)
    return Data(np.asarray(tokens[:, 0], np.float32), share, lambda train, test, _: probe(train, test))


def trained_lesions() -> Data:
    """Simulated lesions and a U-Net that is trained on the chosen ones."""
    from cold_start_unet import Trainer

    tokens, _, share = lesion_vectors()
    return Data(np.asarray(tokens[:, 0], np.float32), share, Trainer(CACHE / "lesions-64", lesion_pictures), draws=1)


def lesion_tokens(images: list[np.ndarray]) -> np.ndarray:
    """All tokens of DINOv2, class token first, [N, 257, 384] float16."""
    import torch
    from PIL import Image

    from fewer.data.decode import to_array
    from fewer.models.spec import load_model

    loaded = load_model("fewer/dinov2-small", crop=1.0)
    out = []
    with torch.no_grad():
        for start in range(0, len(images), 16):
            batch = [to_array(Image.fromarray(image), loaded.preprocess) for image in images[start : start + 16]]
            out.append(loaded.model(torch.from_numpy(np.stack(batch))).numpy().astype(np.float16))
            told(len(batch), "lesions")
    return np.concatenate(out)


class PatchProbe:
    """Segments by a logistic regression on patch tokens, reduced to 64 whitened directions."""

    def __init__(self, tokens: np.ndarray, masks: np.ndarray, components: int = 64, ridge: float = 1.0) -> None:
        count, patches, dim = tokens.shape
        side = round(patches**0.5)
        size = masks.shape[1] // side
        self.side, self.ridge = side, ridge
        self.share = masks.reshape(count, side, size, side, size).mean((2, 4)).reshape(count, -1)
        flat = tokens.reshape(-1, dim)
        mean = flat.mean(0)
        sample = flat[::37] - mean
        values, basis = np.linalg.eigh(sample.T @ sample / len(sample))
        best = np.argsort(values)[::-1][:components]
        self.points = ((flat - mean) @ (basis[:, best] / np.sqrt(values[best]))).reshape(count, patches, components)
        self.masks = masks[:, 2::4, 2::4].astype(bool)

    def __call__(self, train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
        points = self.points[train].reshape(-1, self.points.shape[-1]).astype(np.float64)
        points = np.hstack([points, np.ones((len(points), 1))])
        wanted = self.share[train].ravel()
        weights = np.zeros(points.shape[1])
        ridge = self.ridge * np.eye(len(weights))
        for _ in range(8):  # Newton's method; eight steps are enough for a convex problem of this kind
            chance = 1 / (1 + np.exp(-np.clip(points @ weights, -30, 30)))
            slope = points.T @ (chance - wanted) + ridge @ weights
            curvature = (points * (chance * (1 - chance) + 1e-4)[:, None]).T @ points + ridge
            weights -= np.linalg.solve(curvature, slope)
        chance = 1 / (1 + np.exp(-np.clip(self.points[test] @ weights[:-1] + weights[-1], -30, 30)))
        found = self.enlarged(chance) > 0.5
        both, total = (found & self.masks[test]).sum((1, 2)), found.sum((1, 2)) + self.masks[test].sum((1, 2))
        dice = 2 * both / np.maximum(total, 1)
        return float(dice.mean()), float((dice > 0.8).mean())

    def enlarged(self, chance: np.ndarray) -> np.ndarray:
        """Patch probabilities at the size of the masks, by bilinear interpolation."""
        from PIL import Image

        size = self.masks.shape[2], self.masks.shape[1]
        maps = chance.astype(np.float32).reshape(-1, self.side, self.side)
        return np.stack([np.asarray(Image.fromarray(m).resize(size, Image.Resampling.BILINEAR)) for m in maps])


_told = [0.0]


def told(count: float, name: str) -> None:
    """One line every half minute."""
    if time.monotonic() - _told[0] > 30:
        _told[0] = time.monotonic()
        print(f"# embedding: {name}", flush=True)


POOLS: dict[tuple[str, str], Callable[[], Data]] = {
    ("lesions", "dinov2-small"): lesions,
    ("elpv", "dinov2-small"): lambda: elpv("dinov2-small"),
    ("elpv", "mobilenet-v2"): lambda: elpv("mobilenet-v2"),
    ("mnist", "mobilenet-v2"): mnist,
    ("lesions", TRAINED): trained_lesions,
}


def run(data: Data, method: str, budget: int, seed: int) -> dict:
    """Choose, train the probe, and judge it."""
    order = np.random.default_rng([seed, 11]).permutation(len(data.vectors))
    edge = len(order) * 3 // 4
    here, test = np.sort(order[:edge]), np.sort(order[edge:])
    pool = Pool(data.vectors[here], foreground=data.foreground[here])
    scores, seconds, labels = [], 0.0, 0
    for draw in range(data.draws if "random" in method else 1):
        began = time.perf_counter()
        if method in ROUNDS:
            rows = in_two_rounds(data, here, pool, method, budget, seed)
        else:
            rows = choose(pool, method, budget, seed=3 * seed + draw).rows
        seconds += time.perf_counter() - began
        labels = len(rows)
        scores.append(data.judge(here[rows], test, seed))
    score, second = np.mean(scores, 0)
    return {
        "labels": labels,
        "score": f"{score:.5f}",
        "second": f"{second:.5f}",
        "seconds": f"{seconds / len(scores):.3f}",
    }


def in_two_rounds(data: Data, here: np.ndarray, pool: Pool, method: str, budget: int, seed: int) -> np.ndarray:
    """Half of the budget in a cold start, the other half when the first labels are known."""
    assert data.labels is not None, f"{method} needs classes"
    first = choose(pool, "coverage", budget // 2, seed=seed).rows
    classes = data.labels[here[first]]
    predictions = None
    if "plain" not in method and len(set(classes)) > 1:
        predictions = probe_predictions(pool.features, first, classes, members=4, seed=seed)
    knowing = Pool(pool.features, labelled=first, predictions=predictions)
    if method.startswith("leaning"):
        second = select_coverage(knowing, budget - len(first), seed, leaning=6.0)
    else:
        then = "entropy" if method.startswith("entropy") and predictions is not None else "coverage"
        second = choose(knowing, then, budget - len(first), seed=seed)
    return np.concatenate([first, second.rows])


def summarise(rows: list[dict], out: Path) -> list[dict]:
    """Mean, paired difference from random with its interval, and area under the learning curve, per method."""
    from scipy.stats import t as student

    table: dict[tuple, dict[tuple, float]] = {}
    for row in rows:
        case = row["pool"], row["features"], row["method"]
        table.setdefault(case, {})[int(row["budget"]), int(row["seed"])] = float(row["score"])
    for case, cells in table.items():
        # area under the curve over the logarithm of the budget, so that each doubling counts the same
        for seed in {s for _, s in cells}:
            if all((b, seed) in cells for b in BUDGETS):
                values = [cells[b, seed] for b in BUDGETS]
                width = np.log(BUDGETS[-1] / BUDGETS[0])
                cells[0, seed] = float(np.trapezoid(values, np.log(BUDGETS)) / width)
        table[case] = cells
    summary = []
    for (pool, features, method), cells, name in ((*c, name) for c in table.items() for name in SETS):
        if name != "all" and (pool, features) != BLIND:
            continue
        base = table.get((pool, features, "random"), {})
        for budget in (*BUDGETS, 0):
            seeds = [s for b, s in cells if b == budget and (b, s) in base and s in SETS[name]]
            if len(seeds) < 2:
                continue
            score = np.array([cells[budget, s] for s in seeds])
            gain = score - np.array([base[budget, s] for s in seeds])
            half = float(student.ppf(0.975, len(seeds) - 1) * gain.std(ddof=1) / np.sqrt(len(seeds)))
            spread = float(student.ppf(0.975, len(seeds) - 1) * score.std(ddof=1) / np.sqrt(len(seeds)))
            rival, over, over_half = beside_rivals(table, (pool, features, method), budget, seeds)
            mine = [r for r in rows if (r["pool"], r["features"], r["method"]) == (pool, features, method)]
            spent = [float(r["seconds"]) for r in mine if budget in (0, int(r["budget"])) and int(r["seed"]) in seeds]
            summary.append(
                {
                    "pool": pool,
                    "features": features,
                    "method": method,
                    "budget": budget or "area",
                    "set": name,
                    "seeds": len(seeds),
                    "score": round(float(score.mean()), 4),
                    "interval": round(spread, 4),
                    "gain": round(float(gain.mean()), 4),
                    "gain_interval": round(half, 4),
                    "best_rival": rival,
                    "over_rival": over,
                    "over_rival_interval": over_half,
                    "seconds": round(float(np.mean(spent)), 3),
                }
            )
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(summary[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary)
    return summary


def beside_rivals(
    table: dict[tuple, dict[tuple, float]], case: tuple[str, str, str], budget: int, seeds: list[int]
) -> tuple[str, float | str, float | str]:
    """The rival that a method gains least over, the paired difference from it, and its 95 % interval."""
    from scipy.stats import t as student

    found = []
    for rival in RIVALS:
        other = table.get((*case[:2], rival), {})
        gain = np.array([table[case][budget, s] - other[budget, s] for s in seeds if (budget, s) in other])
        if len(gain) > 1 and rival != case[2]:
            half = student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
            found.append((round(float(gain.mean()), 4), round(float(half), 4), rival))
    return (min(found)[2], *min(found)[:2]) if found else ("", "", "")


def draw(summary: list[dict], out: Path) -> None:
    """Learning curves with intervals, and the gain over random beneath."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "fewer"
    from matplotlib import pyplot as plt

    summary = [r for r in summary if r["set"] == "all"]
    pools = [p for p in POOLS if any((r["pool"], r["features"]) == p for r in summary)]
    figure, axes = plt.subplots(2, len(pools), figsize=(5 * len(pools), 8), squeeze=False, sharex=True)
    colour = {m: f"C{i}" for i, m in enumerate(METHODS)}
    colour |= {"coverage": "black", "random": "grey", "saal-corrected": "C8"}
    for column, pool in enumerate(pools):
        for place, method in enumerate(METHODS):  # the picture is about cold starts; two rounds are in the table
            mine = [
                r
                for r in summary
                if (r["pool"], r["features"]) == pool and r["method"] == method and r["budget"] != "area"
            ]
            if not mine:
                continue
            at = np.array([r["budget"] for r in mine]) * 1.02 ** (place - 4)  # beside each other, not over each other
            bold = {"linewidth": 2.4 if method in ("coverage", "random") else 1.1, "color": colour[method]}
            for row, (value, half) in enumerate((("score", "interval"), ("gain", "gain_interval"))):
                if row and method == "random":
                    continue
                axes[row, column].errorbar(
                    at, [100 * r[value] for r in mine], [100 * r[half] for r in mine], label=method, capsize=2, **bold
                )
        axes[0, column].set_title(", ".join(pool) + (" (simulated)" if pool[0] == "lesions" else ""))
        axes[0, column].set_ylabel("mean Dice, %" if pool[0] == "lesions" else "accuracy, %")
        axes[1, column].set_ylabel("gain over random, points")
        axes[1, column].axhline(0, color="grey", linewidth=2.4)
        axes[1, column].set_ylim(-20, 15)
        axes[1, column].set_xlabel("labels")
        axes[1, column].set_xscale("log")
        axes[1, column].set_xticks(BUDGETS, [str(b) for b in BUDGETS])
        axes[1, column].minorticks_off()
    axes[0, 0].legend(fontsize=8)
    figure.suptitle("Cold start: labels chosen by each method; bars are 95 % intervals over seeds")
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def seed_range(text: str) -> range:
    """``20`` is the first twenty seeds, ``20-59`` these forty."""
    first, dash, last = text.partition("-")
    return range(int(first), int(last) + 1) if dash else range(int(first))


def main() -> None:
    """Run what has no row yet, then summarise."""
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seed_range, default=range(10), help="how many, or FIRST-LAST; see above")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS, choices=BUDGETS)
    parser.add_argument("--methods", nargs="+", default=(*METHODS, *ROUNDS))
    parser.add_argument("--pools", nargs="+", default=[" ".join(p) for p in POOLS])
    parser.add_argument("--out", type=Path, default=RESULTS / "cold_start.csv")
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    known = {tuple(r[c] for c in COLUMNS[:5]) for r in rows}
    if not rows:
        args.out.write_text(",".join(COLUMNS) + "\n")
    for pool, make in POOLS.items() if not args.summary else ():
        if " ".join(pool) not in args.pools:
            continue
        wanted = [(*pool, m, str(b), str(s)) for s in args.seeds for m in args.methods for b in args.budgets]
        if pool[1] == TRAINED:
            wanted.sort(key=lambda case: int(case[3]))
        wanted = [w for w in wanted if w not in known and not (w[2] in ROUNDS and pool[0] == "lesions")]
        data = make() if wanted else None
        for place, case in enumerate(wanted):
            assert data is not None
            row = dict(zip(COLUMNS[:5], case, strict=True)) | run(data, case[2], int(case[3]), int(case[4]))
            rows.append(row)
            with args.out.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
            if place % (20 if pool[1] == TRAINED else 100) == 0:
                print(*row.values(), flush=True)
    summary = summarise(rows, args.out.with_name(args.out.stem + "_summary.csv"))
    draw(summary, args.out.with_suffix(".svg"))
    args.out.with_suffix(".json").write_text(json.dumps(environment(), indent=1) + "\n")
    for row in summary:
        print(*row.values())


if __name__ == "__main__":
    main()
