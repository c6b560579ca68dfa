"""An integer-only DINOv2 against float: every published set of approximations, and the planned mix. No training.

    python benchmarks/nonlinear.py [--calibrate 8] [--test 8] [--budget energy=0.7x]

Photos are those of ``fewer.data.photos``; the first ones calibrate, the next ones test. Writes
benchmarks/results/nonlinear.csv: cosine of the class token and relative squared error of all tokens. Takes about a
minute for each set on one core, and with --plan about an hour (every method in every pair of blocks).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fewer.approximate.compile import compile_transformer, observe
from fewer.approximate.plan import PUBLISHED, plan_approximations
from fewer.approximate.transformer import Choice
from fewer.data.photos import real_photos
from fewer.models.spec import load_model

RESULTS = Path(__file__).parent / "results" / "nonlinear.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", type=int, default=8)
    parser.add_argument("--test", type=int, default=8)
    parser.add_argument("--budget", default="energy=0.7x")
    parser.add_argument("--plan", action="store_true")
    args = parser.parse_args()
    loaded = load_model("fewer/dinov2-small")
    paths = [p.path for p in real_photos()][: args.calibrate + args.test]
    pixels = np.stack([np.asarray(Image.open(p).convert("RGB").resize((224, 224))).transpose(2, 0, 1) for p in paths])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (loaded.mean, loaded.std))
    images = (torch.from_numpy(pixels).float() / 255 - mean) / std
    known, fresh = images[: args.calibrate], slice(args.calibrate, None)
    with torch.no_grad():
        wanted = loaded.model(images[fresh]).double().numpy()
    seen = observe(loaded.model, known)
    sets = {"default": dict.fromkeys(range(12), Choice())}
    sets |= {name: dict.fromkeys(range(12), choice) for name, choice in PUBLISHED.items()}
    if args.plan:
        mix = plan_approximations(
            loaded.model,
            known[:2],
            pixels[:2],
            mean=loaded.mean,
            std=loaded.std,
            budget=args.budget,
            blocks_at_once=2,
        )
        sets[f"planned {args.budget}"] = mix.choices
    RESULTS.parent.mkdir(exist_ok=True)
    done = {r["set"] for r in csv.DictReader(RESULTS.open(newline=""))} if RESULTS.exists() else set()
    if not done:
        RESULTS.write_text("set,calibrated_on,tested_on,cosine_mean,cosine_least,relative_error\n")
    for name, choices in sets.items():
        if name in done:
            continue
        net = compile_transformer(loaded.model, known, mean=loaded.mean, std=loaded.std, choices=choices, seen=seen)
        got = np.concatenate([net.features(pixels[i : i + 1]) for i in range(args.calibrate, len(pixels))])
        a, b = got[:, 0], wanted[:, 0]
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        error = ((got - wanted) ** 2).sum() / (wanted**2).sum()
        row = [name, args.calibrate, len(pixels) - args.calibrate]
        row += [f"{cosine.mean():.5f}", f"{cosine.min():.5f}", f"{error:.5f}"]
        print(*row, flush=True)
        with RESULTS.open("a", newline="") as handle:
            csv.writer(handle).writerow(row)


if __name__ == "__main__":
    main()
