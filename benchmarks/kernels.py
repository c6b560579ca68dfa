"""Block-sparse kernels beside torch, onnxruntime and OpenVINO: single layers, attention, and whole networks.

    python benchmarks/kernels.py                       # everything; results/kernels_*.csv
    python benchmarks/kernels.py --quick --only layers
    python benchmarks/kernels.py --only vit --rounds 21 --threads 1

On a busy machine, set OMP_WAIT_POLICY=PASSIVE for more than one thread: OpenMP threads that spin at a barrier
for one that is pre-empted would be measured instead of the kernels (torch and ours alike).

Masks are random with an exact share of zero blocks, weights random: this measures speed, not accuracy. Ratios are of
medians taken interleaved in one process; the spread is the 10th to 90th percentile of the times in milliseconds.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from kernels_common import (
    RESULTS,
    Table,
    best_of,
    block_mask,
    environment,
    interleaved,
    onnx_sessions,
    openvino_requests,
    peaks,
    ratio,
)
from torch import nn

from fewer.kernels import ops
from fewer.kernels.accelerate import accelerate
from fewer.kernels.dense import DenseBF16
from fewer.kernels.linear import BlockSparseLinear

SHAPES = [(384, 1152), (384, 384), (384, 1536), (1536, 384), (768, 2304), (768, 768), (768, 3072), (3072, 768)]
SPARSITIES = (0.0, 0.5, 0.7, 0.9)
# Floors that were set before anything was built: times faster than the dense peer of the same precision.
LAYER_FLOOR = {
    "fp32": dict(zip(SPARSITIES, (1.0, 1.9, 3.0, 7.0), strict=True)),
    "bf16": dict(zip(SPARSITIES, (1.0, 1.8, 2.7, 6.0), strict=True)),
    "int8": dict(zip(SPARSITIES, (0.9, 1.5, 2.2, 4.0), strict=True)),
}
VIT_FLOOR = {
    "fp32": ("best dense fp32", {0.5: 1.3, 0.7: 1.7, 0.9: 2.3}),
    "bf16": ("openvino bf16", {0.5: 1.0, 0.7: 1.25, 0.9: 1.6}),
    "int8": ("openvino int8", {0.5: 1.2, 0.7: 1.5, 0.9: 1.8}),
}
VIT_EAGER_FLOOR = {0.5: 1.9, 0.7: 2.5, 0.9: 3.5}


def spread(times: np.ndarray) -> str:
    low, mid, high = np.percentile(times, (10, 50, 90))
    return f"{mid:.3f} ({low:.3f}-{high:.3f})"


def layers(args: argparse.Namespace, threads: int) -> None:
    """Single linear layers against the dense layer of the same precision."""
    fields = [
        "inputs",
        "outputs",
        "tokens",
        "block",
        "precision",
        "sparsity",
        "peer",
        "times_faster",
        "floor",
        "gflops",
        "share_of_peak",
        "ms",
        "peer_ms",
    ]
    top = peaks()
    stamp = environment(threads=threads, rounds=args.rounds, peak_gops_one_thread={k: round(v) for k, v in top.items()})
    table = Table(f"kernels_layers_{threads}t", fields, stamp, args.out)
    shapes = [SHAPES[0], SHAPES[2], SHAPES[3]] if args.quick else SHAPES
    for inputs, outputs in shapes:
        for tokens in (197,) if args.quick else (197, 1576):
            linear = nn.Linear(inputs, outputs)
            x = torch.randn(tokens, inputs)
            peers = {"torch fp32": lambda linear=linear, x=x: linear(x)}
            low, low_x = DenseBF16(linear).layer, x.bfloat16()
            peers["torch bf16"] = lambda low=low, low_x=low_x: low(low_x)
            int8_peers: list[str] = []
            if not args.no_peers:
                found = onnx_sessions(linear, x, threads, ("int8",)) | openvino_requests(linear, x, threads, ("int8",))
                int8_peers, peers = list(found), peers | found
            runs = dict(peers)
            ours: list[tuple[str, str, float, str]] = []
            for width in (16, 4):
                for sparsity in SPARSITIES:
                    mask = block_mask(outputs, inputs, 16, width, sparsity, seed=inputs + outputs)
                    for precision in ("fp32", "bf16", "int8"):
                        if width == 4 and sparsity == 0:
                            continue
                        layer = BlockSparseLinear.from_dense(linear, mask, precision)
                        fed = low_x if precision == "bf16" else x
                        name = f"{precision} 16x{width} {sparsity}"
                        runs[name] = lambda layer=layer, fed=fed: layer(fed)
                        ours.append((precision, f"16x{width}", sparsity, name))
            taken = interleaved(runs, args.rounds, threads)
            for precision, block, sparsity, name in ours:
                if precision == "int8" and not int8_peers:
                    continue
                peer = best_of(taken, int8_peers) if precision == "int8" else f"torch {precision}"
                rate = 2 * tokens * inputs * outputs * (1 - sparsity) / np.median(taken[name]) / 1e6
                table.add(
                    inputs=inputs,
                    outputs=outputs,
                    tokens=tokens,
                    block=block,
                    precision=precision,
                    sparsity=sparsity,
                    peer=peer,
                    times_faster=ratio(taken, peer, name),
                    floor=LAYER_FLOOR[precision][sparsity] * (1 if block == "16x16" else 0.8),
                    gflops=float(rate),
                    share_of_peak=float(rate / (top[precision] * threads)),
                    ms=spread(taken[name]),
                    peer_ms=spread(taken[peer]),
                )
            print(f"layers {threads}t: {inputs} -> {outputs}, {tokens} tokens done", flush=True)
    summarise(table.path)


def summarise(path: Path) -> None:
    """Median over shapes of each (block, precision, sparsity), beside its floor."""
    import csv

    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    groups: dict[tuple, list[dict]] = {}
    for row in csv.DictReader(lines):
        groups.setdefault((row["block"], row["precision"], row["sparsity"]), []).append(row)
    for key, rows in groups.items():
        values = [float(r["times_faster"]) for r in rows]
        share = np.median([float(r["share_of_peak"]) for r in rows])
        floor = float(rows[0]["floor"])
        verdict = "reached" if np.median(values) >= floor else "MISSED"
        print(
            f"  {key[0]:6s} {key[1]:5s} {key[2]:4s}: median {np.median(values):5.2f} (lowest {min(values):5.2f}) "
            f"floor {floor:4.2f} {verdict}; {100 * share:.0f} % of peak"
        )


def attention(args: argparse.Namespace, threads: int) -> None:
    """Fused attention against torch's scaled_dot_product_attention."""
    fields = [
        "batch",
        "heads",
        "tokens",
        "dim",
        "precision",
        "times_faster_than_torch_fp32",
        "gflops",
        "ms",
        "torch_fp32_ms",
        "torch_bf16_ms",
    ]
    table = Table(f"kernels_attention_{threads}t", fields, environment(threads=threads, rounds=args.rounds), args.out)
    for batch, heads, tokens in [(1, 6, 197), (8, 6, 197), (1, 12, 197), (1, 6, 257), (1, 6, 1025)]:
        q, k, v = torch.randn(3, batch, heads, tokens, 64).unbind(0)
        low = [t.bfloat16() for t in (q, k, v)]
        runs = {
            "torch fp32": lambda q=q, k=k, v=v: nn.functional.scaled_dot_product_attention(q, k, v),
            "torch bf16": lambda low=low: nn.functional.scaled_dot_product_attention(*low),
            "fp32": lambda q=q, k=k, v=v: ops.attention(q, k, v),
            "bf16": lambda low=low: ops.attention(*low, precision="bf16"),
        }
        taken = interleaved(runs, args.rounds, threads)
        for precision in ("fp32", "bf16"):
            rate = 4 * batch * heads * tokens * tokens * 64 / np.median(taken[precision]) / 1e6
            gain = ratio(taken, "torch fp32", precision)
            table.add(
                batch=batch,
                heads=heads,
                tokens=tokens,
                dim=64,
                precision=precision,
                times_faster_than_torch_fp32=gain,
                gflops=float(rate),
                ms=spread(taken[precision]),
                torch_fp32_ms=spread(taken["torch fp32"]),
                torch_bf16_ms=spread(taken["torch bf16"]),
            )
            print(
                f"attention {threads}t {batch}x{heads}x{tokens} {precision}: {gain:.2f}, {rate:.0f} GFLOP/s", flush=True
            )


def random_masks(model: nn.Module, kind: type, sparsity: float, width: int) -> dict[str, torch.Tensor]:
    """Random block masks for the linear layers of the transformer blocks, or for the 1 x 1 convolutions."""
    masks = {}
    for seed, (name, module) in enumerate(model.named_modules()):
        if kind is nn.Linear and isinstance(module, nn.Linear) and (".attn." in name or ".mlp." in name):
            masks[name] = block_mask(module.out_features, module.in_features, 16, width, sparsity, seed)
        elif kind is nn.Conv2d and isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            rows = -(-module.out_channels // 16) * 16
            mask = block_mask(rows, module.in_channels, 16, width, sparsity, seed)[: module.out_channels]
            masks[name] = mask[:, :, None, None].contiguous()
    return masks


def networks(args: argparse.Namespace, threads: int, name: str, model: nn.Module, kind: type) -> None:
    """A whole network at several sparsities and precisions against every dense peer."""
    fields = [
        "network",
        "batch",
        "precision",
        "sparsity",
        "backend",
        "peer",
        "times_faster",
        "times_faster_than_torch_eager",
        "floor",
        "ms",
        "peer_ms",
    ]
    fields += ["torch_eager_ms", "relative_error"]
    table = Table(f"kernels_{name}_{threads}t", fields, environment(threads=threads, rounds=args.rounds), args.out)
    model = model.eval().requires_grad_(False)
    sparsities = (0.5, 0.9) if args.quick else SPARSITIES
    for batch in (1,) if args.quick else (1, 8):
        x = torch.randn(batch, 3, 224, 224)
        runs = {"torch eager": lambda x=x: model(x)}
        if not args.no_peers:
            runs |= onnx_sessions(model, x, threads, ("fp32", "int8"))
            runs |= openvino_requests(model, x, threads, ("fp32", "bf16", "int8"))
        dense_fp32 = [n for n in runs if n.endswith("fp32") or n == "torch eager"]
        ours = []
        for sparsity in sparsities:
            masks = random_masks(model, kind, sparsity, 16 if kind is nn.Linear else 4)
            for precision in ("fp32", "bf16", "int8"):
                fast, rows = accelerate(model, masks, example=x, precision=precision, budget_ms=15)
                key = f"{precision} {sparsity}"
                runs[key] = lambda fast=fast, x=x: fast(x)
                masked = {n: p.clone() for n, p in model.named_parameters()}
                for layer, mask in masks.items():
                    model.get_submodule(layer).weight.mul_(mask)
                expected = model(x)
                model.load_state_dict(masked, strict=False)
                error = float((fast(x) - expected).norm() / expected.norm())
                ours.append((precision, sparsity, key, rows[-1].backend, error))
        taken = interleaved(runs, max(3, args.rounds // (1 if batch == 1 else 3)), threads)
        for peer in [n for n in runs if n not in {key for _, _, key, _, _ in ours}]:
            print(f"  {name} {threads}t batch {batch}: {peer} {spread(taken[peer])} ms", flush=True)
        for precision, sparsity, key, backend, error in ours:
            peer, floors = VIT_FLOOR[precision]
            peer = best_of(taken, dense_fp32) if precision == "fp32" else peer
            if peer not in taken:
                peer = "torch eager"
            gain, eager = ratio(taken, peer, key), ratio(taken, "torch eager", key)
            floor = floors.get(sparsity, float("nan")) if kind is nn.Linear else float("nan")
            table.add(
                network=name,
                batch=batch,
                precision=precision,
                sparsity=sparsity,
                backend=backend,
                peer=peer,
                times_faster=gain,
                times_faster_than_torch_eager=eager,
                floor=floor,
                ms=spread(taken[key]),
                peer_ms=spread(taken[peer]),
                torch_eager_ms=spread(taken["torch eager"]),
                relative_error=error,
            )
            print(
                f"  {name} {threads}t batch {batch} {key}: {spread(taken[key])} ms, {gain:.2f} x {peer} "
                f"(floor {floor}), {eager:.2f} x torch eager",
                flush=True,
            )


def strides(args: argparse.Namespace, threads: int) -> None:
    """Speed over fuzzed shapes: no shape may fall off a cliff, 4096-byte strides in particular."""
    fields = [
        "inputs",
        "outputs",
        "tokens",
        "precision",
        "gflops",
        "share_of_median",
    ]
    table = Table(f"kernels_strides_{threads}t", fields, environment(threads=threads, rounds=args.rounds), args.out)
    around = [1024, 2048, 3072, 4096]
    sizes = sorted({n + d for n in around for d in (-16, 0, 16)} | {768, 1000, 1536, 1792, 2500})
    for precision in ("fp32", "bf16", "int8"):
        rates = {}
        for tokens in (64, 197):
            for outputs in (384, 1024):
                runs = {}
                for inputs in sizes:
                    mask = block_mask(outputs, inputs // 16 * 16, 16, 16, 0.5, seed=inputs)
                    mask = nn.functional.pad(mask, (0, inputs % 16))
                    layer = BlockSparseLinear.from_dense(nn.Linear(inputs, outputs), mask, precision)
                    x = torch.randn(tokens, inputs)
                    runs[str(inputs)] = lambda layer=layer, x=x: layer(x)
                for key, times in interleaved(runs, args.rounds, threads).items():
                    work = 2 * tokens * int(key) * outputs * 0.5
                    rates[int(key), outputs, tokens] = float(work / np.percentile(times, 25) / 1e6)
        middle = float(np.median(list(rates.values())))
        for (inputs, outputs, tokens), rate in rates.items():
            share = rate / middle
            table.add(
                inputs=inputs, outputs=outputs, tokens=tokens, precision=precision, gflops=rate, share_of_median=share
            )
        worst = min(rates, key=lambda k: rates[k])
        print(
            f"strides {threads}t {precision}: median {middle:.0f}, worst {rates[worst] / middle:.2f} of it at {worst}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, sparsities and batches")
    parser.add_argument("--only", nargs="*", default=["layers", "attention", "vit", "mobilenet", "strides"])
    parser.add_argument("--threads", default="1,2", help="comma-separated thread counts")
    parser.add_argument("--no-peers", action="store_true", help="torch only, without onnxruntime and OpenVINO")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    for threads in [int(n) for n in args.threads.split(",")]:
        torch.set_num_threads(threads)
        if "layers" in args.only:
            layers(args, threads)
        if "attention" in args.only:
            attention(args, threads)
        if "strides" in args.only:
            strides(args, threads)
        if "vit" in args.only:
            from fewer.models.vit import VisionTransformer

            networks(args, threads, "vit_small", VisionTransformer(num_classes=1000), nn.Linear)
        if "mobilenet" in args.only:
            from fewer.models.mobilenet import MobileNetV2

            networks(args, threads, "mobilenet_v2", MobileNetV2(), nn.Conv2d)


if __name__ == "__main__":
    main()
