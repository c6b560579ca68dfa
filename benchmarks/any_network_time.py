"""The time of networks of which this package has no special knowledge: every dense runtime, and ours.

Weights are random: time does not depend on them, and nothing is said about quality here. Ours is ``fewer compress``
with ``--runtime auto`` at ``latency=0.5x`` of the fastest dense fp32 runtime; a row says which runtime it took. Each
competitor runs in a process of its own, in turns (``fewer bench``). Rows are added to the CSV network by network, and
those that are there already are not timed again. Run it on a machine on which nothing else runs. Needs timm with
torchvision, onnxruntime, OpenVINO and NNCF.

    OMP_NUM_THREADS=1 python benchmarks/any_network_time.py --threads 1 2 --batches 1 8
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewer
from fewer.core.errors import FewerError
from fewer.core.stamp import environment

OUT = Path(__file__).parent / "results" / "any_network_time.csv"
FIELDS = (
    "network", "threads", "batch", "row", "runtime", "precision", "ms", "low_ms", "high_ms", "times_best_dense_fp32",
    "times_best_dense_of_its_precision", "predicted_ms", "note", "cpu", "versions",
)  # fmt: skip
TIMM = (
    "resnet18", "resnet50", "mobilenetv3_large_100", "efficientnet_b0", "regnety_008", "convnext_tiny",
    "swin_tiny_patch4_window7_224", "deit_small_patch16_224", "mixer_s16_224", "beit_base_patch16_224", "vgg11",
)  # fmt: skip


class SeparateBlock(nn.Module):
    """A transformer block with separate layers for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Patches(nn.Module):
    """Patches of 16 pixels, blocks, mean, head."""

    def __init__(self, blocks: nn.Module, width: int) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = nn.Conv2d(3, width, 16, 16), blocks, nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


class UNet(nn.Module):
    """Four levels, two convolutions each, skips."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_double(a, b) for a, b in zip((3, *widths), widths, strict=False))
        self.up = nn.ModuleList(_double(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))
        return self.head(x)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for width in (inputs, outputs):
        parts += [nn.Conv2d(width, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts)


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(384, 6, 1536, batch_first=True, norm_first=True, activation="gelu", dropout=0.0)
    return Patches(nn.TransformerEncoder(layer, 12, enable_nested_tensor=False), 384)


OWN: dict[str, Callable[[], nn.Module]] = {
    "unet": UNet,
    "vit with separate q, k, v": lambda: Patches(nn.Sequential(*(SeparateBlock(384, 6) for _ in range(12))), 384),
    "vit of nn.TransformerEncoder": _encoder,
}


def network(name: str) -> nn.Module:
    """A network with random weights, the same ones each time."""
    torch.manual_seed(0)
    if name in OWN:
        return OWN[name]().eval()
    from fewer.models.adapters import import_timm

    model = import_timm().create_model(name, pretrained=False).eval()
    with torch.no_grad():  # heads and branches that start switched off cost nothing to cut, which no trained one does
        for kind, p in model.named_parameters():
            if not kind.endswith("bias") and bool(p.abs().max() < 1e-3):
                _ = p.fill_(0.25) if p.squeeze().ndim < 2 else nn.init.trunc_normal_(p, std=0.02)
    return model


def ours(model: nn.Module, images: Tensor, budget: str, threads: int, batch: int, out: Path) -> Any:
    """A run at a budget; as little sensing as it takes."""
    settings = fewer.Settings(
        threads=threads, deploy_batch=batch, calibration=16, sensing=2, heldout=4, baselines=(), additivity=0, probes=1,
        estimator="taylor", workers=1,
    )  # fmt: skip
    return fewer.compress(model, images, budget, settings=settings, out=out)


def rows_of(name: str, threads: int, batch: int, rounds: int | None, folder: Path) -> list[dict[str, Any]]:
    """Every row of a cell."""
    from fewer.timing.run import Extra
    from fewer.timing.sources import RuntimeFile

    model = network(name)
    images = torch.randn(24, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    example = images[:1].expand(batch, -1, -1, -1).contiguous()
    extras: dict[str, Any] = {}
    notes: dict[str, tuple[str, float | None, str]] = {}
    for budget in ("latency=0.5x",):
        row = f"fewer {budget}"
        try:
            run = ours(model, images, budget, threads, batch, folder / budget.replace("=", "-"))
        except FewerError as error:
            notes[row] = ("", None, str(error))
            continue
        facts, latency = run.curves.meta["device"], run.report.latency
        told = f"dense is {facts.get('against', 'torch')}; planned and measured {latency.plans}"
        notes[row] = (facts.get("runtime", "native"), latency.predicted_ms, told)
        file = run.folder / "runtime.onnx"
        precisions = {option.precision for option in run.plan.options().values()}
        lowest = next(p for p in ("int8", "bf16", "fp32") if p in precisions or p == "fp32")
        if file.exists():
            rest = json.loads((run.folder / "runtime.json").read_text("utf-8"))["precision"]
            extras[row] = Extra(RuntimeFile(file, facts["runtime"], rest), lowest)
        else:
            extras[row] = Extra(run.fast, lowest)
    result = fewer.bench(model, example, vs="all", threads=[threads], rounds=rounds, extra=extras)
    stamp = environment([threads], libraries=("torch", "onnxruntime", "openvino", "nncf"))
    dense = {r.precision: [] for r in result.rows}
    for r in result.rows:
        if r.kind == "peer" and r.wall_ms:
            dense[r.precision].append(statistics.median(r.wall_ms))
    found = []
    for r in result.rows:
        runtime, predicted, note = notes.get(r.name, (r.runtime, None, r.note))
        entry = dict.fromkeys(FIELDS, "") | {
            "network": name, "threads": threads, "batch": batch, "row": r.name, "runtime": runtime,
            "precision": r.precision, "note": note or r.reason, "cpu": stamp["cpu"],
            "versions": " ".join(f"{k} {stamp[k]}" for k in ("torch", "onnxruntime", "openvino", "nncf") if k in stamp),
            "predicted_ms": predicted or "",
        }  # fmt: skip
        if r.wall_ms:
            low, middle, high = (float(torch.tensor(r.wall_ms).quantile(q)) for q in (0.25, 0.5, 0.75))
            entry |= {"ms": middle, "low_ms": low, "high_ms": high}
            entry["times_best_dense_fp32"] = min(dense["fp32"]) / middle
            if dense.get(r.precision):
                entry["times_best_dense_of_its_precision"] = min(dense[r.precision]) / middle
        found.append(entry)
    refused = [row for row in notes if row not in extras]
    found += [
        dict.fromkeys(FIELDS, "") | {"network": name, "threads": threads, "batch": batch, "row": r, "note": notes[r][2]}
        for r in refused
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=[*TIMM, *OWN])
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    known: list[dict[str, Any]] = []
    if args.out.exists():
        with args.out.open(newline="", encoding="utf-8") as file:
            known = list(csv.DictReader(file))
    done = {(r["network"], int(r["threads"]), int(r["batch"])) for r in known}
    for name in args.networks:
        for threads in args.threads:
            for batch in args.batches:
                if (name, threads, batch) in done:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    known += rows_of(name, threads, batch, args.rounds, Path(folder))
                with args.out.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    writer.writeheader()
                    writer.writerows(known)
                print(name, threads, batch, flush=True)


if __name__ == "__main__":
    main()
