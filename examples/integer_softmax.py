"""System 3, the survey: softmax without floating point, four ways, and how far each is from the real one.

Run it:  python examples/integer_softmax.py
"""

from __future__ import annotations

import numpy as np
from _picture import keep, panels

from fewer.approximate.softmax import SOFTMAXES


def main() -> None:
    logits = np.linspace(-8, 4, 400)
    scale = 1 / 256
    exact = 1 / (1 + np.exp(-logits))  # softmax of a pair

    figure, (panel,) = panels(1, height=2.8)
    for name in SOFTMAXES:
        pairs = np.stack([np.zeros_like(logits), logits], -1)
        integers, step = SOFTMAXES[name].run(np.rint(pairs / scale).astype(np.int64), scale)
        off = integers[:, 1] * step - exact
        panel.plot(logits, off, label=name, linewidth=1)
        print(f"{name:<12} largest error {np.abs(off).max():.4f}")
    panel.set(xlabel="difference of two logits", ylabel="error of the probability")
    panel.legend(frameon=False)
    keep(figure, __file__)


if __name__ == "__main__":
    main()
