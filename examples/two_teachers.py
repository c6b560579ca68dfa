"""System 9, LE-UDA: what its teachers ask of a network. Of one head in two modalities, it should be equally sure.

A small network learns from one labelled scan. Where it is unsure is drawn for that scan and for the same head in the
other modality; the difference is the loss by which a teacher pulls the two together (`fewer adapt --method le-uda`).
Run it:  python examples/two_teachers.py
"""

from __future__ import annotations

import numpy as np
import torch
from _picture import keep, pictures
from torch import nn

from fewer.adaptation.le_uda import self_information
from fewer.tasks.segment.modalities import SEQUENCES, phantom, render

STEPS = 60


def main() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    tissue, mask = phantom(rng, (96, 96))
    (labelled, classes), (other, _) = (render(tissue, mask, SEQUENCES[kind], rng) for kind in ("t1", "t2"))
    scale = lambda image: torch.from_numpy((image - image.mean()) / image.std()).float()[None, None]  # noqa: E731
    labelled, other, truth = scale(labelled), scale(other), torch.from_numpy(classes).long()[None]

    classes_seen = int(truth.max()) + 1
    net = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, classes_seen, 5, padding=2))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(STEPS):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(labelled), truth).backward()
        optimiser.step()

    with torch.no_grad():
        known, unknown = (self_information(net(image)) for image in (labelled, other))
    difference = (known - unknown).square().sum(1)[0]
    unsure = [-part.sum(1)[0] for part in (known, unknown)]
    mine, other_one = (float(part.mean()) for part in unsure)
    print(f"bits of doubt in each pixel: labelled modality {mine:.2f}, the other one {other_one:.2f}")
    print(f"what a teacher would take away: {difference.mean():.3f}")
    shown = {
        "labelled modality": labelled[0, 0],
        "the other one": other[0, 0],
        "doubt on the first": unsure[0],
        "doubt on the second": unsure[1],
        "the teachers' loss": difference,
    }
    keep(pictures(shown, 5, height=1.9), __file__, "png")


if __name__ == "__main__":
    main()
