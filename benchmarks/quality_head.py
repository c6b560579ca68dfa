"""How well a score alone can be learnt: heads on the statistics and on the readings of the quality encoder.

No language model takes part. All heads learn from the same distorted squares of the same photos and are judged on other
photos, as in ``benchmarks/quality.py``: the linear layer that pre-training leaves, a ridge regression and a support
vector regression (RBF) on the 753 statistics, a ridge regression on the readings (families, aspects, severities) of
fresh squares, five encoders from other seeds, and the mean of these five and the support vectors. How strongly a
regression is held back is chosen on photos that it did not learn from, those of the training alone. Resumable;
simulated opinions.

    python benchmarks/quality_head.py --seeds 3
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import torch
from quality import changes_tones
from sklearn.svm import SVR

from fewer.data.decode import read_image
from fewer.data.photos import real_photos
from fewer.tasks.quality.baselines import RegressionHead
from fewer.tasks.quality.correlation import spearman
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.experiment import KNOWN, UNSEEN, photos_held
from fewer.tasks.quality.pretraining import Reader, draw_examples, learn
from fewer.tasks.quality.scene import scene_statistics
from fewer.tasks.quality.simulator import Simulated, simulate_images

OUT = Path(__file__).parent / "results" / "quality_head.csv"
HEAD = ["seed", "distorted", "judged", "head", "srcc_seen", "srcc_seen_but_tones", "srcc_unseen", "cpu_seconds"]
ENCODERS, FRESH, FOLDS = 5, 600, 4
Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--distorted", type=int, default=4000)
    parser.add_argument("--judged", type=int, default=120)
    given = parser.parse_args()
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {(row["seed"], row["distorted"], row["judged"]) for row in csv.DictReader(file)}
    for seed in range(given.seeds):
        key = (str(seed), str(given.distorted), str(given.judged))
        if key not in done:
            rows = measure(seed, given.distorted, given.judged)
            fresh = not OUT.exists()
            with OUT.open("a", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerows([HEAD] if fresh else [])
                table.writerows([*key, *row] for row in rows)
            print(*rows, sep="\n", flush=True)


def measure(seed: int, distorted: int, judged: int) -> list[list[str]]:
    """SRCC of every head on other photos."""
    held = photos_held(seed)
    photos = [photo.path for photo in real_photos() if photo.path not in set(held)]
    data = draw_examples(photos, distorted, families=KNOWN, seed=seed)
    fold = np.arange(distorted) % len(photos) % FOLDS  # whole photos
    with tempfile.TemporaryDirectory() as place:
        groups = {
            "seen": simulate_images(held, f"{place}/seen", judged, families=KNOWN, seed=seed + 1),
            "unseen": simulate_images(held, f"{place}/unseen", judged, families=UNSEEN, seed=seed + 2, most=1),
            "fresh": simulate_images(photos, f"{place}/fresh", FRESH, families=KNOWN, seed=seed + 3),
        }
        measured = {name: _measured(group) for name, group in groups.items()}
    rows, made = [], {}
    for name, head in _heads(seed, data, fold, measured, groups["fresh"]).items():
        began = process_time()
        made[name] = head()
        rows.append([name, *_scores(made[name], groups), f"{process_time() - began:.0f}"])
    both = {key: _standard(made["five encoders"][key]) + _standard(made["support vectors"][key]) for key in measured}
    rows.append(["five encoders and support vectors", *_scores(both, groups), ""])
    return rows


def _heads(seed, data, fold, measured, fresh) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """By name, what gives a score to every judged image."""
    readers: list[Reader] = []
    whole, level = data.whole.numpy(), data.levels.numpy()
    middle, unit = whole.mean(0), whole.std(0) + 1e-3

    def plain(values: np.ndarray) -> np.ndarray:
        return np.clip((values - middle) / unit, -5, 5)

    def encoders(count: int) -> dict[str, np.ndarray]:
        while len(readers) < count:
            torch.manual_seed(seed + 100 * len(readers))
            readers.append(learn(StatisticsEncoder(), data, seed=seed + 100 * len(readers)))
        return {name: np.mean([_read(r, *some)[:, -1] for r in readers[:count]], 0) for name, some in measured.items()}

    def statistics(fit: Callable[[float], Fit], strengths: tuple[float, ...]) -> dict[str, np.ndarray]:
        predict = fit(_strength(fit, strengths, plain(whole), level, fold))(plain(whole), level)
        return {name: predict(plain(some[0].numpy())) for name, some in measured.items()}

    def readings() -> dict[str, np.ndarray]:
        inputs = {name: _read(readers[0], *some) for name, some in measured.items()}
        wanted = np.array(list(fresh.opinions.values()))
        place = np.arange(FRESH) % len({t.source for t in fresh.truths}) % FOLDS
        predict = _ridge(_strength(_ridge, (1, 10, 100, 1000), inputs["fresh"], wanted, place))(inputs["fresh"], wanted)
        return {name: predict(some) for name, some in inputs.items()}

    return {
        "linear layer": lambda: encoders(1),
        "ridge on the statistics": lambda: statistics(_ridge, (100, 1000, 10_000)),
        "support vectors": lambda: statistics(_svr, (0.3, 1.0, 3.0)),
        "ridge on the readings": readings,
        "five encoders": lambda: encoders(ENCODERS),
    }


def _ridge(strength: float) -> Fit:
    return lambda x, y: RegressionHead(strength).fit(x, y).predict


def _svr(strength: float) -> Fit:
    return lambda x, y: SVR(C=strength, epsilon=0.2).fit(x, y).predict


def _strength(
    fit: Callable[[float], Fit], strengths: tuple[float, ...], x: np.ndarray, y: np.ndarray, fold: np.ndarray
) -> float:
    """That with the best SRCC on photos that were left out; one fold decides."""
    inside = fold != 0
    found = [spearman(fit(s)(x[inside], y[inside])(x[~inside]), y[~inside]) for s in strengths]
    return strengths[int(np.argmax(found))]


@torch.no_grad()
def _read(reader: Reader, whole: torch.Tensor, cells: torch.Tensor) -> np.ndarray:
    """Logits of families and aspects, severities and the level, of statistics."""
    families, aspects, severity, level, _ = reader.eval()(whole, cells)
    return torch.cat([families, aspects, severity, level[:, None]], 1).numpy()


def _measured(group: Simulated) -> tuple[torch.Tensor, torch.Tensor]:
    images = [np.asarray(read_image(group.folder / t.image).convert("RGB")) for t in group.truths]
    pixels = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()).float() / 255
    parts = [scene_statistics(some) for some in pixels.split(32)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _scores(made: dict[str, np.ndarray], groups: dict[str, Simulated]) -> list[str]:
    opinions = {name: np.array(list(group.opinions.values())) for name, group in groups.items()}
    tones = np.array([changes_tones(truth) for truth in groups["seen"].truths])
    found = [
        spearman(made["seen"], opinions["seen"]),
        spearman(made["seen"][~tones], opinions["seen"][~tones]),
        spearman(made["unseen"], opinions["unseen"]),
    ]
    return [f"{value:.4f}" for value in found]


if __name__ == "__main__":
    main()
