"""Fewer pixels beside fewer channels: networks that judge an image as a whole, at equal FLOPs, without training.

Channels alone are removed (``pattern=columns``), so that every runtime gains by it; with ``pixels`` the plan may make
images smaller inside the model as well. Judged on photos of another source than those that calibrate, as in
``any_network_quality.py``; ``top1`` is against their labels, ``agreement`` against the dense model. Rows are added as
they come, and a run that was interrupted goes on.

    OMP_NUM_THREADS=1 python benchmarks/pixels.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from any_network_quality import Judging, calibrated_on, judged_on
from tables import Table
from unseen import NETWORKS, Absent

from fewer.core.errors import FewerError
from fewer.engine.settings import Settings
from fewer.verbs.compress import compress

OUT = Path(__file__).parent / "results" / "pixels.csv"
COLUMNS = (
    "network", "seed", "flops", "pixels", "side", "of", "error", "agreement", "top1", "reached", "cpu_seconds",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["mobilenet-v2", "efficientnet-lite0", "resnet20"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--flops", nargs="*", type=float, default=[0.5, 0.75, 0.35])
    parser.add_argument("--calibration", type=int, default=48)
    parser.add_argument("--judged", type=int, default=80)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, keys=4)
    for seed in args.seeds:
        for share in args.flops:
            for name in args.networks:
                for pixels in (True, False):
                    row = {"network": name, "seed": seed, "flops": share, "pixels": "offered" if pixels else "all"}
                    if row in table:
                        continue
                    try:
                        table.add(row | measured(name, seed, share, pixels, args))
                    except (Absent, FewerError) as error:
                        print(f"{name} at {share:g}: {error}", flush=True)


def measured(name: str, seed: int, share: float, pixels: bool, args: argparse.Namespace) -> dict[str, object]:
    """What one compression gives."""
    network = NETWORKS[name]
    loaded = network.load()
    settings = Settings(
        seed=seed, calibration=args.calibration, heldout=16, sensing=8, baselines=(), additivity=0, pattern="columns",
        precisions=("fp32",), pixels="auto" if pixels else "off",
    )  # fmt: skip
    judging = Judging(loaded, *judged_on(network.images, loaded, args.judged))
    began = time.process_time()
    run = compress(loaded, calibrated_on("photos", loaded, settings), f"flops={share}x", settings=settings)
    side = loaded.preprocess.input_size[1]
    kept = run.curves.meta.get("pixels") or {"kept": side, "of": side}
    (budget,) = run.report.verdict.budgets
    return {
        **judging.row(run.model),
        "side": kept["kept"],
        "of": kept["of"],
        "reached": f"{budget.reached / budget.dense:.3f}",
        "cpu_seconds": f"{time.process_time() - began:.0f}",
    }


if __name__ == "__main__":
    main()
