"""A network that was trained in 8 bits, judged where it runs: in torch, on the native kernels, and as ONNX with QDQ.

    python benchmarks/lowbit_deployed.py cifar10/ --weights resnet20.safetensors

``--weights`` are those that the training starts from, such as the published ones of ResNet-20. The ONNX file has the
ranges of inputs that the training ended with; nothing is calibrated. Every row is judged on the same images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lowbit_common import arguments, opened, part_of, recipe
from tables import Table

import fewer
from fewer.tasks.classify.batches import Augmented
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.starting import SMALL
from fewer.tasks.classify.training import train

COLUMNS = ("network", "quantiser", "bits", "seed", "steps", "rate", "where", "accuracy", "agrees")


def main() -> None:
    """Train, store, export and judge."""
    parser = arguments(str(__doc__), 200)
    parser.add_argument("--weights", required=True, help="file of weights, or run folder, of the same network")
    parser.add_argument("--quantiser", default="ste")
    parser.add_argument("--bits", default="w8a8")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out or Path(__file__).parent / "results" / "lowbit_deployed.csv"
    table = Table(path, COLUMNS, 7)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    run = data.parent / f"deployed-{options.network}-{options.quantiser}-{options.bits}-{options.steps}"
    settings = TrainSettings(
        **recipe(options, options.steps, 0) | {"init": options.weights},
        bits=options.bits,
        quantiser=options.quantiser,
        edges="8",
    )
    done = train(opened(data), out=run, settings=settings, overwrite=run.exists())
    file = run / "model.onnx"
    fewer.export(run, "onnx", activations="static", deploy_batch=100, overwrite=True)
    test = Augmented(opened(data), opened(data).rows("test"), SMALL, settings, fewer.core.progress.Silent())
    batches = list(test.plain(100))
    labels = torch.cat([y for _, y in batches])
    stored = _guesses(fewer.load(run), batches)
    native = _guesses(fewer.load(run, accelerated=True, example=batches[0][0]), batches)
    found = {
        "torch, weights rounded, inputs fp32": stored,
        "native kernels": native,
        "ONNX with QDQ": _onnx(file, batches),
    }
    row = {"network": options.network, "quantiser": options.quantiser, "bits": options.bits, "seed": 0}
    row |= {"steps": options.steps, "rate": options.rate}
    assert done.evaluation is not None
    table.add(row | {"where": "as trained (simulated)", "accuracy": f"{done.evaluation.top1:.4f}", "agrees": ""})
    for where, guess in found.items():
        right, agrees = float((guess == labels).float().mean()), float((guess == stored).float().mean())
        table.add(row | {"where": where, "accuracy": f"{right:.4f}", "agrees": f"{agrees:.4f}"})


def _guesses(model: torch.nn.Module, batches: list) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) for x, _ in batches])


def _onnx(file: Path, batches: list) -> torch.Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.from_numpy(np.concatenate([session.run(None, {name: x.numpy()})[0].argmax(1) for x, _ in batches]))


if __name__ == "__main__":
    main()
