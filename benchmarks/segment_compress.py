"""Segmentation networks under ``latency=0.5x``: Dice before and after, and the times that were really measured.

Simulated skin lesions; a network is trained by ``fewer train``, goes through ``fewer compress`` with blocks, with
removed channels, or with both to choose from, and is judged by its Dice on the cases that did not train. Every step is
a real command, and is printed. Where no plan meets the budget the row says so, with the smallest reachable latency.

The shares of a network's time are processor time of its layers in one forward pass after another, by kind: those of
convolutions that ``fewer`` can make faster, and those of transposed convolutions, norms and the rest, which it leaves.

    python benchmarks/segment_compress.py --work /tmp/segment            # goes on where it stopped
    python benchmarks/segment_compress.py --work /tmp/segment --shares   # only the shares of the time
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from fewer.reports import environment

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "network", "side", "width", "levels", "steps", "pattern", "budget", "recover", "met", "dense_ms", "planned_ms",
    "measured_ms", "of_dense", "dice_dense", "dice_after", "dice_recovered", "missed_dense", "missed_after",
    "distortion", "told",
)  # fmt: skip
KEY = COLUMNS[:8]
SHARES = ("network", "side", "width", "levels", "convolutions", "transposed", "norms", "rest", "ms")
PATTERNS = ("columns", "block:16x4,columns", "block:16x4")
BROAD = {"convolutions": (nn.Conv2d,), "transposed": (nn.ConvTranspose2d,), "norms": (nn.InstanceNorm2d,)}


def told(words: list[str]) -> tuple[int, str]:
    """Run a command of fewer; its exit code, and what it said."""
    print("$ fewer", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "fewer", *words], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        print(said.strip().splitlines()[-1:], flush=True)
    return done.returncode, said


def data(work: Path, side: int, count: int) -> Path:
    """Simulated lesions."""
    from fewer.tasks.segment.simulate import Lesions

    return Lesions(count=count, looks=12, skew=0.5, difficulty=0.3, seed=0, size=(side, side)).write(
        work / f"lesions-{side}"
    )


def trained(work: Path, pool: Path, network: str, args: argparse.Namespace) -> Path:
    """A trained run, made once."""
    run = work / f"{network}-{args.side}-{args.width}-{args.levels}-{args.steps}"
    if not (run / "report.json").exists():
        words = ["train", str(pool), "--preset", "cpu", "--network", network, "--out", str(run), "--overwrite"]
        words += ["--width", str(args.width), "--levels", str(args.levels), "--steps", str(args.steps)]
        words += ["--every", str(args.steps), "--patch", f"{args.side},{args.side}", "--learning-rate", "2e-3"]
        code, said = told(words)
        if code:
            raise SystemExit(said)
    return run


def row_of(run: Path, pool: Path, pattern: str, args: argparse.Namespace) -> dict[str, object]:
    """Compress, recover, judge."""
    out = run.with_name(f"{run.name}-{pattern.replace(':', '').replace(',', '+')}-{args.budget.replace('=', '')}")
    words = ["compress", str(run), "--images", str(pool), "--labelled", str(pool), "--budget", args.budget]
    words += [
        "--pattern",
        pattern,
        "--out",
        str(out),
        "--resume" if out.exists() else "--overwrite",
        "--baselines",
        "uniform",
    ]
    words += ["--calibration", "16", "--sensing", "4", "--heldout", "8", "--additivity", "0", "--threads", "1"]
    words += ["--precisions", "fp32,bf16"]  # int8 has no kernel for 3 x 3 convolutions
    code, said = told(words)
    if code not in (0, 3):
        return {"met": False, "told": said.strip().splitlines()[-1].removeprefix("error: ")}
    report = json.loads((out / "report.json").read_text())
    times, verdict = report["latency"], report["verdict"]
    shown = {entry["name"]: entry for entry in verdict["quality"]}
    found: dict[str, object] = {
        "met": verdict["met"],
        "dense_ms": round(times["dense_ms"], 2),
        "planned_ms": round(times["predicted_ms"], 2),
        "measured_ms": round(times["measured_ms"], 2),
        "of_dense": round(times["measured_ms"] / times["dense_ms"], 3),
        "dice_dense": round(shown["Dice, all"]["dense"], 4),
        "dice_after": round(shown["Dice, all"]["value"], 4),
        "missed_dense": int(shown["missed structures"]["dense"]),
        "missed_after": int(shown["missed structures"]["value"]),
        "distortion": f"{verdict['distortion']:.3g}",
    }
    if args.recover:
        code, said = told(["recover", str(out), "--time", args.recover])
        if code == 0:
            code, said = told(["eval", str(out), str(pool), "--json"])
        if code == 0:
            dice = re.search(r'"dice_all":\s*([0-9.]+)', said[said.rfind('"overall"') :])
            found["dice_recovered"] = round(float(dice[1]), 4) if dice else ""
    return found


def shares(run: Path, network: str, args: argparse.Namespace) -> dict[str, object]:
    """Processor time by kind of layer."""
    from fewer.models.spec import load_model

    loaded = load_model(str(run))
    model, example = loaded.model.eval(), torch.zeros(1, *loaded.input_size)
    spent: dict[str, float] = dict.fromkeys(BROAD, 0.0)
    began = [0.0]

    def start(*_: object) -> None:
        began[0] = time.process_time()

    def stop(kind: str):
        def hook(*_: object) -> None:
            spent[kind] += time.process_time() - began[0]

        return hook

    for module in model.modules():
        for kind, classes in BROAD.items():
            if isinstance(module, classes):
                module.register_forward_pre_hook(start)
                module.register_forward_hook(stop(kind))
    passes = 20
    with torch.no_grad():
        for _ in range(3):
            model(example)
        spent.update(dict.fromkeys(BROAD, 0.0))
        first = time.process_time()
        for _ in range(passes):
            model(example)
        whole = time.process_time() - first
    part = {kind: round(seconds / whole, 3) for kind, seconds in spent.items()}
    facts = {"network": network, "side": args.side, "width": args.width, "levels": args.levels}
    return facts | part | {"rest": round(1 - sum(part.values()), 3), "ms": round(1000 * whole / passes, 2)}


def main() -> None:
    """Run what has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=("dynunet", "unet"))
    parser.add_argument("--patterns", nargs="+", default=PATTERNS)
    parser.add_argument("--budget", default="latency=0.5x")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--recover", default="")
    parser.add_argument("--shares", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "segment_compress.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    known = {tuple(row[c] for c in KEY) for row in rows}
    pool = data(args.work, args.side, args.count)
    by_kind = args.out.with_name(args.out.stem + "_shares.csv")
    timed = list(csv.DictReader(by_kind.open())) if by_kind.exists() else []
    for network in args.networks:
        run = trained(args.work, pool, network, args)
        fresh = {c: str(v) for c, v in shares(run, network, args).items()}
        timed = [t for t in timed if any(t[c] != fresh[c] for c in SHARES[:4])] + [fresh]
        write(by_kind, SHARES, timed)
        for pattern in args.patterns if not args.shares else ():
            facts = (network, args.side, args.width, args.levels, args.steps, pattern, args.budget, args.recover)
            row = dict(zip(KEY, map(str, facts), strict=True))
            if tuple(row.values()) not in known:
                rows.append(dict.fromkeys(COLUMNS, "") | row | row_of(run, pool, pattern, args))
                write(args.out, COLUMNS, rows)
                print(*rows[-1].values(), flush=True)
    args.out.with_suffix(".json").write_text(json.dumps(environment(), indent=1) + "\n")


def write(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """A table, as a whole."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
