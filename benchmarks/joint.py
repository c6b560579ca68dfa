"""One network for two targets: what pruning, bits, functions and all together do on an accelerator and encrypted.

    python benchmarks/joint.py [--cycles 0.5] [--he 0.5] [--machine edge-npu] [--steps 400]

The network is that of ``fewer demo private``, trained here on scikit-learn's digits; its images are those digits. Both
parts are planned as ``fewer compress --budget cycles=0.5x,he=0.5x --preset joint`` does, and judged on the same
held-out images. Cycles are modelled, milliseconds predicted. Writes benchmarks/results/joint.csv, a row for each step
under each target, joint_order.csv, the order in which the steps help, and joint.json, the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import torch

import fewer
from fewer.data.digits import real_digits
from fewer.engine.settings import Settings
from fewer.private.demo_run import train_network
from fewer.reports import environment
from fewer.reports.joint import TARGETS
from fewer.reports.page import Page

RESULTS = Path(__file__).parent / "results"


def plan_both(args: argparse.Namespace, out: Path) -> dict:
    """Both parts and their page, and what the page sums up."""
    (images, labels), _ = real_digits()
    known = torch.from_numpy(images)
    net = train_network(known, torch.from_numpy(labels))
    settings = Settings.from_preset("joint", accelerator=args.machine)
    run = fewer.compress(net, known, f"cycles={args.cycles}x", settings=settings, out=out / "accelerator")
    fewer.private_compile(
        net, known, out / "encrypted", budget=f"he={args.he}x", joint=True, steps=args.steps,
        heldout=run.prepared.heldout,
    )  # fmt: skip
    page = fewer.joint_report(out / "accelerator", out / "encrypted", out)
    return Page.from_json(page.with_suffix(".json").read_text()).data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=float, default=0.5)
    parser.add_argument("--he", type=float, default=0.5)
    parser.add_argument("--machine", default="edge-npu")
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = plan_both(args, Path(folder))
    with (RESULTS / "joint.csv").open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["target", "budget", "images", "step", "share", "distance", "note"])
        for target, budget, count, steps in zip(
            TARGETS, found["budgets"], found["images"], found["steps"], strict=True
        ):
            for one in steps.values():
                numbers = ["" if one[k] is None else f"{one[k]:.4g}" for k in ("share", "distance")]
                writer.writerow([target, budget, count, one["step"], *numbers, one["note"]])
                print(target, one["step"], *numbers, one["note"])
    with (RESULTS / "joint_order.csv").open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["target", "order"])
        writer.writerows([target, " ".join(order)] for target, order in zip(TARGETS, found["order"], strict=True))
    stamp = RESULTS / "joint.json"
    stamp.write_text(json.dumps(environment(threads=torch.get_num_threads()), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
