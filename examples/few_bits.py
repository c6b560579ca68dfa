"""System 8, MetaGrad: what rounding a gradient to few bits does. What is right on average is noisy each time.

Run it:  python examples/few_bits.py
"""

from __future__ import annotations

import torch
from _picture import BLUE, GREY, ORANGE, keep, panels

from fewer.formats.gradients import GRADIENTS

DRAWS = 200


def main() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(64, 32) * torch.rand(64, 1) ** 3  # a few samples have much larger gradients than the rest
    rows = []
    for name in ("nearest", "stochastic", "stochastic-sample", "luq"):
        drawn = torch.stack([GRADIENTS[name].run(gradient, 4, torch.ones(1)) for _ in range(DRAWS)])
        size = gradient.square().sum()
        each = float((drawn - gradient).square().sum((1, 2)).mean() / size)
        mean = float((drawn.mean(0) - gradient).square().sum() / size)
        rows.append((name, each, mean))
        print(f"{name:<18} error of one step {each:.4f}, of the mean of {DRAWS} steps {mean:.5f}")

    figure, (panel,) = panels(1, height=2.4)
    places = torch.arange(len(rows)).numpy()
    panel.barh(places + 0.2, [each for _, each, _ in rows], 0.4, color=GREY)
    panel.barh(places - 0.2, [mean for _, _, mean in rows], 0.4, color=[ORANGE, BLUE, BLUE, BLUE])
    panel.set(yticks=places, yticklabels=[name for name, _, _ in rows], xscale="log")
    panel.set_xlabel(f"relative squared error in 4 bits: one step in grey, the mean of {DRAWS} steps in colour")
    keep(figure, __file__)


if __name__ == "__main__":
    main()
