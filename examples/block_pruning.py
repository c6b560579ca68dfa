"""System 1, LPViT: cut a vision transformer in blocks, as the paper does and as the default does.

The network is small and has random weights, so the numbers show how to compare, and not how good anything is.
Run it:  python examples/block_pruning.py
"""

from __future__ import annotations

import torch
from _picture import BLUE, GREY, keep, panels

import fewer
from fewer.models.builtin import build


def main() -> None:
    torch.manual_seed(0)
    model = build("vit-small-16", {"image_size": 32, "width": 48, "depth": 1, "heads": 3, "num_classes": 10})
    images = torch.randn(32, 3, 32, 32)
    quick = {"additivity": 0, "baselines": (), "workers": 1, "calibration": 16, "heldout": 8, "sensing": 4}

    kinds = {
        "LPViT's preset": fewer.Settings.from_preset("lpvit", **quick),
        "our default, in the same blocks": fewer.Settings(pattern="block:16x16", **quick),
    }
    found = {name: fewer.compress(model, images, "flops=0.6x", settings=kind) for name, kind in kinds.items()}

    figure, (panel,) = panels(1, height=1.8)
    values = [run.report.verdict.distortion for run in found.values()]
    panel.barh(list(found), values, color=[GREY, BLUE])
    panel.set_xlabel("distortion on held-out inputs at 0.6 of the FLOPs (0 is the same output)")
    for name, run in found.items():
        print(f"{name:<32} distortion {run.report.verdict.distortion:.4f}")
    keep(figure, __file__)


if __name__ == "__main__":
    main()
