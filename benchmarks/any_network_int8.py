"""int8 on pretrained networks of which the library knows nothing: the runtimes' own tools beside ours, at equal time.

NNCF (with OpenVINO) and onnxruntime's static quantization get the same calibration photos as ours. Ours is ``fewer
compress`` at the time that the rival's model takes, as a share of the fastest dense fp32 runtime, and at shares of
that; ``--runtime auto`` chooses where it runs, among the native kernels, onnxruntime and OpenVINO. All models are then
timed in turns, in one process with one thread, image by image, and judged on photos of another source.
``times_nncf`` and ``times_fp32`` are medians over the rounds: NNCF's time, and that of the
faster dense fp32 runtime, divided by the row's. ``predicted`` is our own share of the dense time. Rows are added as
they come.
Needs the packages that ``unseen.py`` names, onnxruntime, OpenVINO and NNCF, and a machine on which nothing else runs.

    OMP_NUM_THREADS=1 python benchmarks/any_network_int8.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from any_network_quality import Judging, calibrated_on, judged_on
from rival_runtimes import onnxruntime, openvino
from tables import Table
from torch import Tensor, nn
from unseen import NETWORKS, Absent

import fewer
from fewer.core.errors import FewerError
from fewer.engine.prepare import prepare
from fewer.engine.settings import Settings
from fewer.verbs.compress import compress

OUT = Path(__file__).parent / "results" / "any_network_int8.csv"
COLUMNS = (
    "network", "seed", "row", "pixels", "error", "agreement", "top1", "ms", "times_nncf", "times_fp32", "predicted",
    "runtime", "layers", "cpu_seconds",
)  # fmt: skip
SHARES = (1.0, 0.9)
"""Times that ours is asked for, as shares of that of the rival."""
RIVALS = {"nncf": "openvino int8 by nncf", "onnxruntime": "onnxruntime int8 static"}


def milliseconds(models: dict[str, nn.Module], image: Tensor, rounds: int) -> dict[str, list[float]]:
    """Time of one image for each model, in turns; every turn is the least of three calls."""
    found: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for model in models.values():
            for _ in range(5):
                model(image)
        for _ in range(rounds):
            for name, model in models.items():
                calls = []
                for _ in range(3):
                    began = time.perf_counter()
                    model(image)
                    calls.append(1e3 * (time.perf_counter() - began))
                found[name].append(min(calls))
    return found


def ours(
    loaded: Any, images: Any, settings: Settings, share: float, folder: Path, runtime: str
) -> tuple[nn.Module, dict[str, str]]:
    """Our plan at a share of the dense time, and what it says about itself."""
    began = time.process_time()
    run = compress(copy.copy(loaded), images, f"latency={share:.4f}x", settings=settings, runtime=runtime, out=folder)
    counts: dict[str, int] = {}
    for option in run.plan.options().values():
        name = f"{option.precision}{' cut' if option.sparsity else ''}"
        counts[name] = counts.get(name, 0) + 1
    latency = run.report.latency
    used = run.curves.meta["device"].get("runtime", "native")
    facts = {
        "runtime": used,
        "predicted": f"{latency.predicted_ms / latency.dense_ms:.4f}" if latency else "",
        "layers": " ".join(f"{count} {name}" for name, count in sorted(counts.items())),
        "cpu_seconds": f"{time.process_time() - began:.0f}",
    }
    return fewer.load(folder, architecture=lambda: copy.deepcopy(loaded.model), runtime=used, threads=1), facts


def run_network(table: Table, name: str, seed: int, args: argparse.Namespace) -> None:
    """All rows of one network."""
    if {"network": name, "seed": seed, "row": "openvino fp32"} in table:
        return
    network = NETWORKS[name]
    loaded = network.load()
    if loaded.preprocess.input_size[1] > args.size:
        loaded = replace(loaded, preprocess=replace(loaded.preprocess, input_size=(3, args.size, args.size)))
    settings = Settings(
        seed=seed, calibration=args.calibration, heldout=16, sensing=args.sensing, baselines=(), additivity=0, threads=1
    )
    images = calibrated_on("photos", loaded, settings)
    prepared = prepare(loaded, images, settings)
    calibration = torch.cat([b.batch() for b in prepared.calibration.split(16)])
    judging = Judging(loaded, *judged_on(network.images, loaded, args.judged))
    example = judging.images[:1].contiguous()
    models: dict[str, nn.Module] = {}
    facts: dict[str, dict[str, str]] = {}

    def made(row: str, work: Callable[[], nn.Module]) -> None:
        began = time.process_time()
        try:
            models[row] = work()
        except Exception as error:  # a rival that cannot quantize this network is told as that
            print(f"{name} {row}: {str(error).splitlines()[0]}", flush=True)
            return
        facts[row] = {"cpu_seconds": f"{time.process_time() - began:.0f}"}

    for kind in ("fp32", "bf16", "int8"):
        label = "openvino " + ("int8 by nncf" if kind == "int8" else kind)
        made(label, lambda kind=kind: openvino(copy.deepcopy(loaded.model), calibration, kind, 1))
    for kind in ("fp32", "int8 static"):
        made(f"onnxruntime {kind}", lambda kind=kind: onnxruntime(copy.deepcopy(loaded.model), calibration, kind, 1))
    found = milliseconds(models, example, args.rounds)
    dense = [min(pair) for pair in zip(found["openvino fp32"], found["onnxruntime fp32"], strict=True)]
    times = {
        name: statistics.median(a / b for a, b in zip(found[row], dense, strict=True))
        for name, row in RIVALS.items()
        if row in found
    }
    with tempfile.TemporaryDirectory() as folder:
        for rival, share in [
            (r, s) for r in times for s in (args.shares if times[r] == min(times.values()) else (1.0,))
        ]:
            row = f"ours at {share:g} of {rival}"
            place = Path(folder) / row.replace(" ", "-")
            try:
                models[row], facts[row] = ours(loaded, images, settings, share * times[rival], place, args.runtime)
            except FewerError as error:
                print(f"{name} {row}: {error}", flush=True)
        found = milliseconds(models, example, args.rounds)
        for row, model in models.items():
            values = {
                "network": name, "seed": seed, "row": row, "pixels": loaded.preprocess.input_size[1],
                **judging.row(model), **facts[row], "ms": f"{statistics.median(found[row]):.4f}",
            }  # fmt: skip
            dense = [min(pair) for pair in zip(found["openvino fp32"], found["onnxruntime fp32"], strict=True)]
            for column, other in (("times_nncf", found["openvino int8 by nncf"]), ("times_fp32", dense)):
                ratios = [a / b for a, b in zip(other, found[row], strict=True)]
                values[column] = f"{statistics.median(ratios):.3f}"
            table.add(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--shares", nargs="*", type=float, default=list(SHARES))
    parser.add_argument("--size", type=int, default=224, help="pixels of a side, at most")
    parser.add_argument("--calibration", type=int, default=48)
    parser.add_argument("--sensing", type=int, default=8)
    parser.add_argument("--judged", type=int, default=80)
    parser.add_argument("--runtime", default="auto", help="where ours shall run")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, keys=3)
    for seed in args.seeds:
        for name in args.networks:
            try:
                run_network(table, name, seed, args)
            except Absent as error:
                print(f"{name} is left out: {error}", flush=True)


if __name__ == "__main__":
    main()
