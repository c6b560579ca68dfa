"""Networks as ``fewer compress`` prunes them, on the block-sparse kernels, beside dense runtimes: time and quality.

Real pretrained networks, real photos, the masks and repaired weights of runs of ``fewer compress`` in blocks of 16 x 4
with 30, 50 and 70 % of the weights gone; quality on photos that the runs held out, with the very model that is timed,
int8 activations included. In MobileNetV2 the depthwise convolutions and the first one are left alone; shares are of
the rest. Runs stay in ``--work``: making them (on any machine) and timing them (on a quiet one) may be two calls.

    python benchmarks/kernels_pruned.py --work /tmp/pruned --make     # only the runs
    python benchmarks/kernels_pruned.py --work /tmp/pruned            # results/kernels_pruned_1t.csv and _2t.csv
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import torch
from kernels_common import (
    RESULTS,
    Table,
    best_of,
    environment,
    interleaved,
    onnx_sessions,
    openvino_requests,
    ratio,
)
from torch import nn

import fewer
from fewer.data.photos import real_photos
from fewer.engine.judge import Judge
from fewer.engine.prepare import prepare
from fewer.kernels.accelerate import accelerate
from fewer.models.artefact import load_masks

PATTERN = "block:16x4"
DEPTHWISE = {"fewer/mobilenet-v2": ("features.0.0", "features.1.conv.0.0", "features.*.conv.1.0")}
FIELDS = [
    "network", "pattern", "batch", "threads", "sparsity", "precision", "quality_name", "quality", "distortion",
    "ms", "peer", "peer_ms", "times_faster", "torch_eager_ms", "times_faster_than_torch_eager", "dense_layers",
]  # fmt: skip
PEERS = {"fp32": None, "bf16": "openvino bf16", "int8": "openvino int8"}


def pruned(name: str, sparsities: list[float], work: Path) -> tuple[nn.Module, Judge, dict[float, Path]]:
    """The dense network, a judge on the photos that no run learnt from, and the run folder at each sparsity."""
    photos = [p.path for p in real_photos()]
    settings = fewer.Settings(
        pattern=PATTERN, calibration=40, heldout=32, exclude=DEPTHWISE.get(name, ()), baselines=(), additivity=0
    )
    runs = {}
    for sparsity in sparsities:
        runs[sparsity] = work / f"{name.replace('/', '-')}-{sparsity}"
        if not (runs[sparsity] / "report.json").exists():
            fewer.compress(
                name, photos, f"weights={1 - sparsity:.0%}", settings=settings, out=runs[sparsity], overwrite=True
            )
            print(f"# {name} cut to {1 - sparsity:.0%}", flush=True)
    prepared = prepare(name, photos, settings)  # the same split of the files
    return prepared.model, Judge(prepared.model, prepared.heldout, task=prepared.loaded.task), runs


def measure(name: str, args: argparse.Namespace, tables: dict[int, Table]) -> None:
    dense, judge, made = pruned(name, args.sparsities, args.work)
    if args.make:
        return
    for threads, table in tables.items():
        torch.set_num_threads(threads)
        for batch in args.batches:
            x = torch.cat(judge.batches)[:batch].contiguous()
            runs = {"torch eager": lambda x=x: dense(x)}
            runs |= onnx_sessions(dense, x, threads, ("fp32", "int8"))
            runs |= openvino_requests(dense, x, threads, ("fp32", "bf16", "int8"))
            fp32 = [n for n in runs if n.endswith("fp32") or n == "torch eager"]
            ours = {}
            for sparsity, run in made.items():
                model, cut = fewer.load(run), load_masks(run)
                for precision in PEERS:
                    fast, rows = accelerate(model, cut, example=x, precision=precision, budget_ms=15)
                    runs[f"{precision} {sparsity}"] = lambda fast=fast, x=x: fast(x)
                    stay = sum(r.backend.startswith("dense") for r in rows)
                    ours[sparsity, precision] = judge.judge(fast), stay
            taken = interleaved(runs, args.rounds, threads)
            for (sparsity, precision), (quality, stay) in ours.items():
                key, peer = f"{precision} {sparsity}", PEERS[precision] or best_of(taken, fp32)
                low, middle, high = (float(q) for q in _quantiles(taken[key]))
                table.add(
                    network=name, pattern=PATTERN, batch=batch, threads=threads, sparsity=sparsity,
                    precision=precision, quality_name=quality.name, quality=quality.value,
                    distortion=quality.distortion, ms=f"{middle:.3f} ({low:.3f}-{high:.3f})", peer=peer,
                    peer_ms=float(_quantiles(taken[peer])[1]), times_faster=ratio(taken, peer, key),
                    torch_eager_ms=float(_quantiles(taken["torch eager"])[1]),
                    times_faster_than_torch_eager=ratio(taken, "torch eager", key), dense_layers=stay,
                )  # fmt: skip
                print(
                    f"{name} {threads}t batch {batch} {key}: {middle:.2f} ms, {ratio(taken, peer, key):.2f} x {peer}, "
                    f"{quality.name} {quality.value:.3f}",
                    flush=True,
                )


def _quantiles(times) -> list[float]:
    values = sorted(times)
    return [values[int(q * (len(values) - 1))] for q in (0.1, 0.5, 0.9)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["fewer/dinov2-small", "fewer/mobilenet-v2"])
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--work", type=Path, default=Path("kernels-pruned-work"), help="where the runs are kept")
    parser.add_argument("--make", action="store_true", help="make the runs, time nothing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_grad_enabled(False)
    tables = {}
    if not args.make:
        for t in args.threads:
            tables[t] = Table(f"kernels_pruned_{t}t", FIELDS, environment(threads=t, rounds=args.rounds), args.out)
    for name in args.models:
        measure(name, args, tables)


if __name__ == "__main__":
    main()
