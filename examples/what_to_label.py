"""System 10, SAAL, beside other ways: which of 400 images should be annotated first, when none has a label?

Here an image is a point; `fewer select photos/` takes features of a network (docs/select.md).
Run it:  python examples/what_to_label.py
"""

from __future__ import annotations

import numpy as np
from _picture import BLUE, GREY, keep, panels

from fewer.selection.methods import choose
from fewer.selection.pool import Pool


def main() -> None:
    rng = np.random.default_rng(4)
    sizes = rng.permutation([150, 90, 60, 40, 30, 15, 10, 5])  # kinds of images, some of them rare
    middles = rng.uniform(-8, 8, (len(sizes), 2))
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    points = (middles[kinds] + rng.normal(0, 0.6, (len(kinds), 2))).astype(np.float32)

    figure, axes = panels(3, height=2.6)
    for panel, method in zip(axes, ("random", "saal", "coverage"), strict=True):
        drawn = [choose(Pool(points), method, 12, seed=seed).rows for seed in range(20)]
        rows, met = drawn[0], np.mean([len(set(kinds[rows])) for rows in drawn])
        print(f"{method:<10} 12 labels meet {met:.1f} of {len(sizes)} kinds, mean of {len(drawn)} seeds")
        panel.plot(*points.T, ".", color=GREY, markersize=2)
        panel.plot(*points[rows].T, "o", color=BLUE, markersize=5)
        panel.set(title=f"{method}: {met:.1f} of {len(sizes)} kinds", xticks=[], yticks=[])
    keep(figure, __file__, "png")


if __name__ == "__main__":
    main()
