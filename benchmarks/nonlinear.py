"""An integer-only DINOv2 (W8A8) against float: each approximation alone, published sets, and planned mixes.

The whole forward pass is integer arithmetic, as :mod:`fewer.approximate.transformer` specifies it. Photos calibrate and
plan; MNIST digits and elpv solar cells (real images, 112 px) judge. Class tokens are held against those of the float
model: cosine, and what a linear probe says that was trained on the float features of other images. No training of the
network. Rows "only: ..." have one method in all blocks and the first one of the other kinds. Two rows have softmax,
GELU and LayerNorm in floating point: weights and activations in 8 bits as in all other rows, which tells what the
methods themselves lose, and OpenVINO's int8 by its own tool NNCF.

    OMP_NUM_THREADS=1 python benchmarks/nonlinear.py     # results/nonlinear.csv, goes on where it stopped
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from approximations import MODEL, SIDE, smaller
from PIL import Image
from rival_runtimes import openvino
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import Table
from torch import Tensor

from fewer.approximate import compile as compiling
from fewer.approximate import transformer
from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.compile import compile_transformer, observe
from fewer.approximate.plan import PUBLISHED, plan_approximations
from fewer.approximate.softmax import SOFTMAXES
from fewer.approximate.transformer import Choice
from fewer.data.photos import real_photos
from fewer.data.preprocess import Preprocess
from fewer.models.spec import load_model
from fewer.tasks.classify.sets import load_elpv, load_mnist

RESULTS = Path(__file__).parent / "results" / "nonlinear.csv"
COLUMNS = ("model", "side", "set", "data", "calibrated", "train", "test", "joules_share")
COLUMNS += ("cosine_mean", "cosine_least", "same_answer", "accuracy")
BUDGETS = ("energy=0.7x", "energy=0.28x")
BLOCKS = range(12)
RIVAL = "openvino int8 by nncf"
"""Products in 8 bits; softmax, GELU and LayerNorm in floating point; the same photos for its ranges."""
HALF = "w8a8, functions in floating point"
"""The integer network with exact softmax, GELU and LayerNorm in double precision, rounded to the same scales."""


def _softmax(q: np.ndarray, scale: float, span: Any = None) -> tuple[np.ndarray, float]:
    p = torch.from_numpy(q * scale).softmax(-1).numpy()
    return np.rint(p * 2**16).clip(0, 2**16 - 1).astype(np.int64), 2.0**-16


def _gelu(q: np.ndarray, scale: float, span: Any = None) -> tuple[np.ndarray, float]:
    y = torch.nn.functional.gelu(torch.from_numpy(q * scale)).numpy()
    return np.rint(y * 2**14).astype(np.int64), 2.0**-14


def _norm(q: np.ndarray, scale: float, span: Any = None) -> tuple[np.ndarray, float]:
    y = torch.nn.functional.layer_norm(torch.from_numpy(q * scale), q.shape[-1:], eps=1e-6).numpy()
    return np.rint(y * 2**10).astype(np.int64), 2.0**-10


class _Rows(dict[str, Any]):
    """Stands for a table of methods."""

    default: str


@contextmanager
def functions_in_floating_point() -> Iterator[None]:
    """The first methods are exact while this is entered; networks have to be made and run within."""
    exact = {"SOFTMAXES": _softmax, "ACTIVATIONS": _gelu, "NORMS": _norm}
    with ExitStack() as stack:
        for room in (transformer, compiling):
            for table, run in exact.items():
                rows = _Rows((name, SimpleNamespace(run=run)) for name in vars(room)[table])
                rows.default = vars(room)[table].default
                stack.enter_context(patch.object(room, table, rows))
        yield


def sets() -> dict[str, dict[int, Choice] | None]:
    """What is measured by its name; None is planned when its turn comes."""
    found: dict[str, dict[int, Choice] | None] = {"first methods": dict.fromkeys(BLOCKS, Choice())}
    found |= {name: dict.fromkeys(BLOCKS, choice) for name, choice in PUBLISHED.items()}
    found |= {f"planned {budget}": None for budget in BUDGETS}
    alone = [Choice(softmax=m) for m in SOFTMAXES if m != SOFTMAXES.default]
    alone += [Choice(activation=m) for m in ACTIVATIONS if m.endswith("gelu") and m != ACTIVATIONS.default]
    alone += [Choice(norm="factor-layer-norm")]
    for choice in alone:
        changed = {choice.softmax, choice.activation, choice.norm} - {"table", "table-gelu", "layer-norm"}
        found[f"only: {changed.pop()}"] = dict.fromkeys(BLOCKS, choice)
    return found


class Judge:
    """Images, float features and probes of both data sets, made when they are needed."""

    def __init__(self, loaded: Any, train: int, test: int) -> None:
        self.model, self.counts = loaded.model, {"train": train, "test": test}
        self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) for v in (loaded.mean, loaded.std))
        self.known = cache(self._known)

    def normalised(self, pixels: np.ndarray) -> Tensor:
        return (torch.from_numpy(pixels).float() / 255 - self.mean) / self.std

    @torch.no_grad()
    def floats(self, pixels: np.ndarray) -> np.ndarray:
        return torch.cat([self.model(part)[:, 0] for part in self.normalised(pixels).split(8)]).double().numpy()

    def _known(self, data: str) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        plain = Preprocess((3, SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)
        load: Any = {"mnist": load_mnist, "elpv": load_elpv}[data]
        parts = [load(part, n, seed=0, preprocess=plain) for part, n in self.counts.items()]
        pixels = [(p.images * 255).round().clamp(0, 255).to(torch.uint8).numpy() for p in parts]
        labels = [(p.labels if data == "mnist" else (p.labels >= 2).long()).numpy() for p in parts]
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        probe.fit(self.floats(pixels[0]), labels[0])
        return probe, pixels[1], labels[1], self.floats(pixels[1])

    def judge(self, data: str, after: np.ndarray) -> dict[str, str]:
        probe, _, labels, before = self.known(data)
        cosine = (after * before).sum(-1) / np.linalg.norm(after, axis=-1) / np.linalg.norm(before, axis=-1)
        said, were = probe.predict(after), probe.predict(before)
        return {
            "cosine_mean": f"{cosine.mean():.5f}",
            "cosine_least": f"{cosine.min():.5f}",
            "same_answer": f"{(said == were).mean():.4f}",
            "accuracy": f"{(said == labels).mean():.4f}",
        }


class _Half:
    """The network of :data:`HALF`."""

    def __init__(self, model: torch.nn.Module, known: Tensor, more: dict[str, Any], seen: Any) -> None:
        with functions_in_floating_point():
            made = compiling.compile_transformer(model, known, **more, seen=seen)
        self.net = replace(made, quicken=None)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        with functions_in_floating_point():
            return self.net.features(pixels)


def run(args: argparse.Namespace) -> None:
    loaded = load_model(MODEL)
    loaded = replace(loaded, model=smaller(loaded.model))
    paths = [p.path for p in real_photos()][: args.calibrate]
    photos = [np.asarray(Image.open(p).convert("RGB").resize((SIDE, SIDE))).transpose(2, 0, 1) for p in paths]
    pixels = np.stack(photos)
    judge = Judge(loaded, args.train, args.test)
    known = judge.normalised(pixels)
    seen = observe(loaded.model, known)
    more: dict[str, Any] = {"mean": loaded.mean, "std": loaded.std}
    table = Table(RESULTS, COLUMNS, 7, args.fresh)

    @cache
    def planned(budget: str) -> tuple[dict[int, Choice], str]:
        few = slice(0, args.plan)
        mix = plan_approximations(
            loaded.model, known[few], pixels[few], **more, budget=budget, blocks_at_once=args.blocks_at_once
        )
        return mix.choices, f"{mix.joules / mix.dearest:.3f}"

    for name, choices in {"float": {}, RIVAL: {}, HALF: {}, **sets()}.items():
        common = {"model": MODEL, "side": SIDE, "set": name, "calibrated": len(pixels), "train": args.train}
        common |= {"test": args.test}
        missing = [data for data in ("mnist", "elpv") if {**common, "data": data} not in table]
        if not missing:
            continue
        share = ""
        if choices is None:
            choices, share = planned(name.removeprefix("planned "))
        net = None
        if name == HALF:
            net = _Half(loaded.model, known, more, seen)
        elif name not in ("float", RIVAL):
            net = compile_transformer(loaded.model, known, **more, choices=choices, seen=seen)
        rival = openvino(loaded.model, known, "int8", 1) if name == RIVAL else None
        for data in missing:
            _, images, _, before = judge.known(data)
            parts = (images[i : i + 4] for i in range(0, len(images), 4))
            after = before if net is None else np.concatenate([net.features(part)[:, 0] for part in parts])
            if rival is not None:
                after = rival(judge.normalised(images))[:, 0].double().numpy()
            table.add({**common, "data": data, "joules_share": share, **judge.judge(data, after)})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", type=int, default=8, help="photos that ranges are taken from")
    parser.add_argument("--plan", type=int, default=2, help="of them, that mixes are planned on")
    parser.add_argument("--blocks-at-once", type=int, default=2)
    parser.add_argument("--train", type=int, default=300, help="images that train the probe")
    parser.add_argument("--test", type=int, default=400, help="images that test it")
    parser.add_argument("--fresh", action="store_true")
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
