"""Reports to render: a realistic one of 49 ViT layers, and the edges. All numbers are made up, from a fixed seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fewer.reports.compression.data import RunReport

HOSTILE = "<script>alert('x')</script>\"&amp;$\\frac{"


def units_and_curves(blocks: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Layers of a ViT of so many blocks (four linears each, and the patch embedding) with smooth curves."""
    rng = np.random.default_rng(seed)
    named = [("patch_embed.proj", "conv2d", [384, 3, 14, 14])]
    for block in range(blocks):
        named += [
            (f"blocks.{block}.attn.qkv", "linear", [1152, 384]),
            (f"blocks.{block}.attn.proj", "linear", [384, 384]),
            (f"blocks.{block}.mlp.fc1", "linear", [1536, 384]),
            (f"blocks.{block}.mlp.fc2", "linear", [384, 1536]),
        ]
    grid = [0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95]
    units, curves = [], []
    for index, (name, kind, shape) in enumerate(named):
        hurt = {"qkv": 0.5, "proj": 1.0, "fc1": 2.0, "fc2": 1.4}[name.rsplit(".", 1)[-1]]
        depth = 1 - 0.5 * index / len(named)
        scale = 1.35e-3 * hurt * depth * math.exp(rng.normal(0, 0.35))
        distortion = [scale * (s**2.2) * (1 + 6 * s**6) * 4 for s in grid]
        chosen = int(np.clip(round(6.62 - 3.6 * math.log(scale / 1.35e-3) / 1.2 + rng.normal(0, 0.5)), 0, 14))
        weights = math.prod(shape)
        sparsity = grid[chosen]
        units.append(
            {
                "name": name,
                "kind": kind,
                "shape": shape,
                "option": f"unstructured@{sparsity:.2f}/fp32" if chosen else "dense",
                "pattern": "unstructured" if chosen else "dense",
                "sparsity": sparsity,
                "precision": "fp32",
                "kept_weights": float(round(weights * (1 - sparsity))),
                "weights": float(weights),
                "flops": weights * 514.0 * (1 - sparsity),
                "dense_flops": weights * 514.0,
                "distortion": distortion[chosen],
            }
        )
        curves.append({"unit": name, "sparsity": grid, "distortion": distortion, "chosen": chosen})
    return units, curves


def realistic(blocks: int = 12) -> dict[str, Any]:
    """A full report of a small ViT at half the weights."""
    rng = np.random.default_rng(1)
    units, curves = units_and_curves(blocks)
    dense = sum(unit["weights"] for unit in units)
    reached = sum(unit["kept_weights"] for unit in units)
    total = sum(unit["distortion"] for unit in units)
    sums = np.exp(rng.uniform(math.log(0.02), math.log(0.5), 64))
    joints = sums * np.exp(rng.normal(0.25, 0.18, 64))
    budget = f"weights={math.ceil(100 * reached / dense)}%"
    budgets = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]

    def frontier(level: float) -> list[dict[str, float]]:
        return [{"cost": kept, "measured": level * 1.9 * (1 - kept) ** 2.6} for kept in budgets]

    return {
        "schema_version": 1,
        "fewer_version": "0.1.0",
        "created": "2026-11-22T15:00:00Z",
        "seed": 0,
        "command": f"fewer compress fewer/dinov2-small --images photos/ --budget {budget} "
        "--compensation obs --search 120 --seed 0 --out run/",
        "verdict": {
            "met": True,
            "budgets": [
                {
                    "budget": budget,
                    "metric": "weights",
                    "limit": dense * math.ceil(100 * reached / dense) / 100,
                    "dense": dense,
                    "reached": reached,
                    "unit": "weights",
                }
            ],
            "distortion": 0.1083,
            "quality": [
                {
                    "name": "feature cosine",
                    "value": 0.9512,
                    "dense": 1.0,
                    "higher_is_better": True,
                    "note": "mean over held-out images, class token",
                }
            ],
        },
        "model": {
            "name": "fewer/dinov2-small",
            "parameters": 22056576,
            "source_bytes": 88.2e6,
            "artefact_bytes": 46.4e6,
        },
        "data": {
            "calibration": 64,
            "heldout": 32,
            "source": "photos/",
            "skipped": [
                {"file": "IMG_2041.jpg", "reason": "truncated after 31 kB"},
                {"file": "notes.txt.png", "reason": "not an image"},
            ],
            "note": "Split by a seeded shuffle of the file names.",
        },
        "settings": {
            "pattern": "unstructured",
            "estimator": "measured",
            "reduction": "mean",
            "compensation": "obs",
            "schedule": "one-shot",
        },
        "worst": [
            {
                "file": f"photo{i}.jpg",
                "picture": "/9j/4AAQ",
                "distortion": 0.3 - 0.1 * i,
                "before": [{"label": "tabby", "share": 0.7}, {"label": "lynx", "share": 0.2}],
                "after": [{"label": ("lynx", "tabby")[i], "share": 0.5}, {"label": "fox", "share": 0.1}],
            }
            for i in range(2)
        ],
        "baselines": [
            {
                "name": name,
                "label": label,
                "ours": ours,
                "distortion": distortion,
                "quality": {"feature cosine": cosine},
                "seconds": seconds,
                "compensated": compensated,
            }
            for name, label, ours, distortion, cosine, seconds, compensated in [
                ("dp+search", "fewer (DP + local search)", True, 0.1083, 0.9512, 72.0, True),
                ("dp", "fewer (DP)", True, 0.1151, 0.9480, 12.0, True),
                ("sparsegpt", "SparseGPT with a uniform ratio", False, 0.1546, 0.9301, 9.1, True),
                ("erk", "ERK", False, 0.1742, 0.9215, 8.8, True),
                ("lamp", "LAMP", False, 0.2093, 0.9044, 8.7, True),
                ("global", "Global magnitude", False, 0.3871, 0.8120, 8.6, False),
            ]
        ],
        "frontier": {
            "metric": "weights",
            "label": "kept weights",
            "ours": [
                {
                    "budget": kept,
                    "cost": kept - 0.0003,
                    "predicted": 0.45 * (1 - kept) ** 2.7,
                    "measured": 0.68 * (1 - kept) ** 2.6,
                }
                for kept in budgets
            ],
            "baselines": {
                "sparsegpt": frontier(0.51),
                "erk": frontier(0.60),
                "lamp": frontier(0.72),
                "global": frontier(1.3),
            },
        },
        "units": units,
        "skipped": [
            {"name": "head", "kind": "linear", "reason": "never called in the forward pass"},
            {"name": "pos_embed", "kind": "parameter", "reason": "not a linear or convolution layer"},
        ],
        "curves": curves,
        "additivity": {
            "joint": 0.1083,
            "sum": total,
            "ratio": 0.1083 / total,
            "spearman": 0.957,
            "points": [[float(x), float(y)] for x, y in zip(sums, joints, strict=True)],
            "note": "64 random plans around the budget.",
        },
        "latency": {
            "dense_ms": 143.0,
            "predicted_ms": 30.1,
            "measured_ms": 31.4,
            "spread": 0.08,
            "batch": 1,
            "threads": 1,
            "device": "CPU of the fixture",
            "plans": [[33.0, 35.2], [30.1, 31.0]],
            "layers": [
                {
                    "name": "blocks.0",
                    "kind": "block",
                    "backend": "native block",
                    "precision": "int8",
                    "before_ms": 11.2,
                    "after_ms": 2.3,
                    "reason": "native block int8 takes 2.300 ms",
                },
                {
                    "name": "blocks.0.mlp.fc1",
                    "kind": "linear",
                    "backend": "native block",
                    "precision": "int8",
                    "reason": "part of blocks.0",
                },
            ],
        },
        "runtimes": {
            "threads": 1,
            "batch": 1,
            "images": 16,
            "origin": "held-out images of the run",
            "missing": {"OpenVINO bf16": "this CPU runs it in fp32"},
            "noisy": ["onnxruntime int8"],
            "rows": [
                {
                    "label": "fewer, on its kernels",
                    "ours": True,
                    "ms": 30.0,
                    "low_ms": 28.0,
                    "high_ms": 33.0,
                    "times_faster": 4.8,
                    "distortion": 0.02,
                },
                {"label": "OpenVINO int8", "precision": "int8", "ms": 38.0, "times_faster": 3.8, "distortion": 0.013},
                {
                    "label": "onnxruntime int8",
                    "precision": "int8",
                    "ms": 50.0,
                    "times_faster": 2.9,
                    "distortion": 0.002,
                },
                {"label": "torch eager fp32", "ms": 144.0, "times_faster": 1.0, "distortion": 0.0, "memory_bytes": 3e8},
            ],
        },
        "integers": [
            {
                "name": "blocks.0.attn",
                "function": "softmax",
                "method": "table",
                "distortion": 1.5e-05,
                "options": {"table": 1.5e-05, "shift": 0.002},
            },
        ],
        "contest": [
            {"name": "dp", "label": "fewer (exact DP)", "predicted": 0.09, "measured": 0.12, "chosen": True},
            {"name": "lamp", "label": "LAMP", "predicted": 0.11, "measured": 0.125},
        ],
        "search": {
            "kept": True,
            "before": 0.1151,
            "after": 0.1083,
            "evaluations": 120,
            "seconds": 60.0,
            "note": "Judged on calibration images only.",
        },
        "recovery": {
            "before": 0.1083,
            "after": 0.0412,
            "quality_name": "feature cosine",
            "quality_before": 0.93,
            "quality_after": 0.97,
            "seconds": 600.0,
            "steps": 180,
            "best_step": 180,
            "images": 24,
            "choosing": 16,
            "source": "photos",
            "points": [[0.0, 0.11], [120.0, 0.08], [300.0, 0.06], [580.0, 0.045]],
            "command": "fewer recover run --time 10min",
        },
        "sensing": {
            "forwards": 12345,
            "forward_equivalents": 600.0,
            "paper_forwards": 158000,
            "seconds": 90.0,
            "note": "",
        },
        "timings": {"match": 0.1, "statistics": 10.0, "sense": 90.0, "plan": 0.3, "apply": 30.0, "evaluate": 20.0},
        "peak_memory_bytes": 2.1e9,
        "environment": {
            "fewer": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "numpy": "2.2.0",
            "cpu": "AMD EPYC",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 16 * 2**30,
            "os": "Linux 6.1 (x86_64)",
        },
        "limits": [
            "Output distortion on held-out photos of the same folder; no labelled accuracy was measured.",
            "Removed weights are stored as zeros; this run says nothing about speed.",
        ],
    }


def tiny() -> dict[str, Any]:
    """Two layers, no baselines, one image skipped."""
    values = realistic(1)
    values["units"], values["curves"] = values["units"][:2], values["curves"][:2]
    values["baselines"] = []
    values["frontier"]["baselines"] = {}
    return values


def missed() -> dict[str, Any]:
    """Budget not met, a baseline better than ours, search kept off, weak order."""
    values = realistic()
    del values["recovery"]
    result = values["verdict"]["budgets"][0]
    result["limit"] = 0.3 * result["dense"]
    values["verdict"]["met"] = False
    values["verdict"]["budgets"].append(
        {"budget": "size=48MB", "metric": "size", "limit": 48e6, "dense": 88.2e6, "reached": 46.4e6, "unit": "bytes"}
    )
    values["baselines"][3]["distortion"] = 0.0912
    values["search"].update(kept=False, after=0.1160)
    values["additivity"]["spearman"] = 0.41
    return values


def long_names() -> dict[str, Any]:
    """Layer, file and method names that are very long or hostile."""
    values = realistic()
    prefix = "model.backbone.encoder.stages_with_a_very_long_name.hierarchical_transformer_block_container."
    for unit, curve in zip(values["units"], values["curves"], strict=True):
        unit["name"] = curve["unit"] = prefix + unit["name"]
    values["units"][3]["name"] = values["curves"][3]["unit"] = f"{HOSTILE}.fc2"
    values["units"][4]["name"] = values["curves"][4]["unit"] = "\u5c42.\u00e9\u202e.fc1"
    values["skipped"][0]["name"] = HOSTILE + "y" * 200
    values["data"]["skipped"][0]["file"] = f"../{HOSTILE}{'x' * 180}.jpg"
    values["data"]["skipped"][1] = {"file": "a\udcff\x00b.jpg", "reason": HOSTILE}
    values["baselines"][2]["label"] = "A method with a rather long name by many authors of many institutes, " + HOSTILE
    values["command"] = f"fewer compress '{HOSTILE}' --out run/"
    values["model"]["name"] = prefix + HOSTILE
    values["environment"]["cpu"] = HOSTILE
    values["limits"].append(HOSTILE)
    return values


def zero() -> dict[str, Any]:
    """Nothing was cut: every distortion is 0, where a logarithmic axis has no place."""
    values = realistic()
    del values["recovery"]
    values["verdict"]["distortion"] = 0.0
    for row in values["baselines"]:
        row["distortion"] = 0.0
    for unit, curve in zip(values["units"], values["curves"], strict=True):
        unit.update(distortion=0.0, kept_weights=unit["weights"], sparsity=0.0, option="dense", pattern="dense")
        curve["distortion"] = [0.0] * len(curve["distortion"])
    for point in values["frontier"]["ours"]:
        point.update(predicted=0.0, measured=0.0)
    values["frontier"]["baselines"] = {}
    values["additivity"].update(joint=0.0, sum=0.0, ratio=None, spearman=None, points=[[0.0, 0.0]] * 4)
    values["search"].update(before=0.0, after=0.0)
    for row in values["runtimes"]["rows"]:
        row["distortion"] = 0.0
    return values


def bare() -> dict[str, Any]:
    """Only what is required."""
    return {"created": "2026-11-22T15:00:00Z", "verdict": {"met": True}, "model": {"name": "toy"}}


FIXTURES = {
    "realistic": realistic,
    "tiny": tiny,
    "missed": missed,
    "many": lambda: realistic(75),
    "long_names": long_names,
    "zero": zero,
    "bare": bare,
}


def report(name: str) -> RunReport:
    """The fixture of this name, checked."""
    return RunReport.from_dict(FIXTURES[name]())
