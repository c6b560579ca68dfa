"""What integer softmaxes, activations and norms do to DINOv2: each alone, published sets, and --approximate best.

Weights and everything else stay in floating point: this is about the functions alone (nonlinear.py measures networks
whose whole forward pass is integer arithmetic). Features of MNIST digits and elpv solar cells (real images, 112 px)
under each replacement are held against those of the model as it is: cosine of the class token, and what a linear probe
says that was trained on the float features of other images. The mix is chosen on photos that neither set has.

    OMP_NUM_THREADS=1 python benchmarks/approximations.py        # results/approximations.csv, goes on where it stopped

MobileNetV2 calls none of these functions, so there is nothing to measure for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from probes import DATA, features
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import Table
from torch import Tensor, nn

from fewer.approximate.plan import PUBLISHED
from fewer.approximate.sites import Site, approximated, approximations_of, find_sites, methods_for
from fewer.data.photos import real_photos
from fewer.data.preprocess import Preprocess
from fewer.engine.approximate import approximate_model
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.spec import load_model
from fewer.tasks.classify.sets import load_elpv, load_mnist

RESULTS = Path(__file__).parent / "results"
MODEL, SIDE = "fewer/dinov2-small", 112
COLUMNS = (
    "model",
    "side",
    "replaced",
    "data",
    "train",
    "test",
    "cosine_mean",
    "cosine_least",
    "same_answer",
    "accuracy",
)
MIXES = ("best",)


def smaller(model: nn.Module) -> nn.Module:
    """The same network for images of half the side: position embeddings are resampled, as DINOv2 does."""
    old: Any = model.pos_embed
    grid = old[:, 1:].reshape(1, 16, 16, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(SIDE // 14, SIDE // 14), mode="bicubic", antialias=True)
    model.pos_embed = nn.Parameter(torch.cat([old[:, :1], grid.flatten(2).transpose(1, 2)], 1).detach())
    return model


def everywhere(sites: Sequence[Site], kind: str, method: str) -> dict[str, dict[str, str]]:
    """One method at every place of its kind."""
    return {site.name: {kind: method} for site in sites if site.kind == kind and method in methods_for(site)}


def replacements(sites: Sequence[Site]) -> dict[str, dict[str, dict[str, str]] | None]:
    """What is measured; None is a mix, which is planned when its turn comes."""
    found: dict[str, dict[str, dict[str, str]] | None] = {"nothing": {}}
    for name, choice in PUBLISHED.items():
        found[f"all: {name}"] = {}
        for site in sites:
            found[f"all: {name}"].setdefault(site.name, {})[site.kind] = getattr(choice, site.kind)  # type: ignore[union-attr]
    found |= {f"all: {mix}": None for mix in MIXES}
    for site in {site.kind: site for site in sites}.values():
        found |= {f"{site.kind}: {m}": everywhere(sites, site.kind, m) for m in methods_for(site)}
    return found


def mixed(prepared: Prepared, settings: Settings, mix: str) -> dict[str, dict[str, str]]:
    made = approximate_model(Work(prepared, settings.model_copy(update={"approximate": mix})), prepared.model)
    return approximations_of(made.model)


def run(args: argparse.Namespace) -> None:
    settings = Settings(calibration=args.photos * 4, sensing=args.photos, heldout=4)
    loaded = load_model(MODEL)
    shape = replace(loaded.preprocess, input_size=(3, SIDE, SIDE))
    loaded = replace(loaded, model=smaller(loaded.model), preprocess=shape)
    prepared = prepare(loaded, [p.path for p in real_photos()], settings)
    model = prepared.model
    preprocess = Preprocess((3, SIDE, SIDE), mean=prepared.loaded.mean, std=prepared.loaded.std)
    load: Any = {"mnist": load_mnist, "elpv": load_elpv}
    table = Table(RESULTS / "approximations.csv", COLUMNS, 6, args.fresh)

    @cache
    def known(data: str) -> tuple[Any, Tensor, Tensor, Tensor]:
        counts = {"train": args.count, "test": args.tested}
        train, test = (load[data](p, n, seed=0, preprocess=preprocess) for p, n in counts.items())
        labels = [part.labels if data == "mnist" else (part.labels >= 2).long() for part in (train, test)]
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        probe.fit(features(model, train.images), labels[0])
        return probe, test.images, labels[1], features(model, test.images)

    def measure(name: str, choices: dict[str, dict[str, str]], data: str, common: dict[str, Any]) -> None:
        probe, images, labels, before = known(data)
        after = before if not choices else changed(model, choices, images)
        cosine = torch.cosine_similarity(before.double(), after.double())
        said, were = probe.predict(after), probe.predict(before)
        table.add(
            common
            | {
                "cosine_mean": f"{cosine.mean():.6f}",
                "cosine_least": f"{cosine.min():.6f}",
                "same_answer": f"{(said == were).mean():.4f}",
                "accuracy": f"{(said == labels.numpy()).mean():.4f}",
            }
        )

    sites = find_sites(model, lambda m: m(torch.zeros(1, 3, SIDE, SIDE)))
    for name, choices in replacements(sites).items():
        for data in DATA:
            common = {"model": MODEL, "side": SIDE, "replaced": name, "data": data}
            common |= {"train": args.count, "test": args.tested}
            if common not in table:
                choices = mixed(prepared, settings, name.removeprefix("all: ")) if choices is None else choices
                measure(name, choices, data, common)


def changed(model: nn.Module, choices: dict[str, dict[str, str]], images: Tensor) -> Tensor:
    """Features with integers in place of functions."""
    with approximated(model, choices) as other:
        return features(other, images)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="images that train the probe")
    parser.add_argument("--tested", type=int, default=60, help="images that test it")
    parser.add_argument("--photos", type=int, default=2, help="that mixes are planned on")
    parser.add_argument("--fresh", action="store_true")
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
