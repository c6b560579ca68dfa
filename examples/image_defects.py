"""System 4, Q-Instruct: known defects in a picture, and what people would call them.

Feedback on such pictures is collected with `fewer study`, and tunes a model with `fewer tune` (docs/quality.md).
Run it:  python examples/image_defects.py
"""

from __future__ import annotations

import numpy as np
from _picture import keep, pictures

from fewer.data.distortions.families import FAMILIES
from fewer.data.distortions.truth import Applied, distort


def picture(side: int = 96) -> np.ndarray:
    """A sunset over water, drawn."""
    y, x = np.mgrid[:side, :side] / side
    sky = np.stack([0.9 - 0.4 * y, 0.5 - 0.2 * y, 0.3 + 0.3 * y], -1)
    water = np.stack([0.1 + 0.1 * np.sin(60 * y), 0.25 + 0.1 * np.sin(50 * y + 8 * x), 0.45 - 0.1 * y], -1)
    drawn = np.where((y > 0.6)[..., None], water, sky)
    drawn[np.hypot(x - 0.5, y - 0.45) < 0.13] = (1.0, 0.9, 0.6)
    return (255 * drawn.clip(0, 1)).astype(np.uint8)


def main() -> None:
    good = picture()
    shown = {"as it is": good}
    for name in ("gaussian-blur", "white-noise", "darken", "jpeg", "pixelate", "oversaturate", "colour-blocks"):
        shown[f"{FAMILIES[name].word}\n({name})"] = distort(good, [Applied(name, 4)])
        print(f"{name:<16} a person would say: it is {FAMILIES[name].word}")
    keep(pictures(shown, 4, 2, height=4.6), __file__, "png")


if __name__ == "__main__":
    main()
