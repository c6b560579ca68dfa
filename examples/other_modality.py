"""System 7, MS-MT: one simulated head in two modalities, and ways to make a scan look like others.

`fewer adapt source/ target/` learns from such images what carries over (docs/adapt.md).
Run it:  python examples/other_modality.py
"""

from __future__ import annotations

import numpy as np
import torch
from _picture import keep, pictures

from fewer.adaptation.style import match_histogram, random_curve, synthesise
from fewer.tasks.segment.modalities import SEQUENCES, phantom, render


def main() -> None:
    rng = np.random.default_rng(0)
    tissue, mask = phantom(rng, (96, 96))
    (first, classes), (second, _) = (render(tissue, mask, SEQUENCES[kind], rng) for kind in ("t1", "t2"))
    scale = lambda image: (image - image.mean()) / image.std()  # noqa: E731
    first, second = (scale(torch.from_numpy(image).float()[None]) for image in (first, second))
    labels = torch.from_numpy(classes)
    shown = {
        "labelled modality": first,
        "the other one": second,
        "histogram matched": match_histogram(first, second),
        "a random curve": random_curve(first, labels, rng),
        "painted from labels": synthesise(first, labels, rng),
    }
    likeness = lambda image: float(torch.corrcoef(torch.stack([image.flatten(), second.flatten()]))[0, 1])  # noqa: E731
    for name, image in shown.items():
        print(f"{name:<20} correlation with the other modality {likeness(image):+.2f}")
    keep(pictures({name: image[0] for name, image in shown.items()}, 5, height=1.9), __file__, "png")


if __name__ == "__main__":
    main()
