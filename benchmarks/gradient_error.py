"""How far gradients in few bits are from those in fp32, for the same weights and batches, and how much of it is bias.

    python benchmarks/gradient_error.py cifar10/ --start-steps 1600

A network is trained in fp32, and then stands still. For each rounding, gradients of all weights are drawn several times
for each of some batches: ``one`` is the relative squared error of a single draw, ``bias`` that of the mean of all
draws, less what is left of the noise in it, and ``cosine`` the agreement of a single draw with fp32, mean over layers.
Bits of the first and the last layer are those of all others here.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from lowbit_common import arguments, opened, part_of, recipe, started
from tables import Table

import fewer
from fewer.core.progress import Silent
from fewer.formats.gradients import GRADIENTS
from fewer.quantize.lowbit import exchange, low_bit_layers, parse_bits
from fewer.tasks.classify.batches import Augmented
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.starting import SMALL

COLUMNS = ("network", "start", "rounding", "bits", "batches", "draws", "one", "bias", "cosine", "worst_cosine")
DRAWS = 8


def gradients(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """Of the weights of all layers in few bits."""
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    return [layer.weight.grad.clone() for layer in low_bit_layers(model).values()]


def main() -> None:
    """Measure every rounding at every number of bits."""
    parser = arguments(str(__doc__), 1)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--gradient-bits", default="8,4,3,2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out or Path(__file__).parent / "results" / "gradient_error.csv"
    table = Table(path, COLUMNS, 6)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    run = started(data, options)["init"]
    settings = TrainSettings(**recipe(options, 1, 0))
    draws = Augmented(opened(data), opened(data).rows("train"), SMALL, settings, Silent())
    batches = [draws.batch(step) for step in range(options.batches)]
    base = fewer.load(run).eval()
    torch.manual_seed(0)
    for bits in options.gradient_bits.split(","):
        for name in GRADIENTS:
            row = {"network": options.network, "start": options.start_steps, "rounding": name, "bits": bits}
            row |= {"batches": options.batches, "draws": DRAWS}
            if row not in table:
                table.add(row | measured(base, name, bits, batches))


def measured(base: torch.nn.Module, name: str, bits: str, batches: list) -> dict[str, str]:
    """Errors of a rounding, mean over batches and layers."""
    model = copy.deepcopy(base)
    exchange(model, parse_bits(f"g{bits}"), batches[0][0], gradients=name, edges="same")
    layers = low_bit_layers(model).values()
    one, bias, cosine = [], [], []
    for images, labels in batches:
        for layer in layers:
            layer.gradient.enabled = False
        exact = gradients(model, images, labels)
        for layer in layers:
            layer.gradient.enabled = True
        drawn = [gradients(model, images, labels) for _ in range(DRAWS)]
        for number, target in enumerate(exact):
            each = torch.stack([found[number] for found in drawn])
            size = target.square().sum()
            single = float((each - target).square().sum() / len(each) / size)
            noise = float(each.var(0).sum() / size) / len(each)
            one.append(single)
            bias.append(max(0.0, float((each.mean(0) - target).square().sum() / size) - noise))
            cosine.append(float(F.cosine_similarity(each[0].flatten(), target.flatten(), 0)))
    found = {"one": sum(one) / len(one), "bias": sum(bias) / len(bias), "cosine": sum(cosine) / len(cosine)}
    return {key: f"{value:.5f}" for key, value in (found | {"worst_cosine": min(cosine)}).items()}


if __name__ == "__main__":
    main()
