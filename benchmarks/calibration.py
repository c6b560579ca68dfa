"""How many calibration images does the repair need?

Every layer of a network is cut alike and repaired in order, as ``fewer compress`` does it, with more and more random
crops of the same files; the error is that on crops of other files. Few crops are learnt by heart: the error on the
calibration images then is far below that on held-out ones. Nothing is trained. Seconds are processor time of the cut
and its repair, on one thread. Photos: those that scikit-image, scikit-learn and foolbox ship, 30 files for calibration
and 10 held out.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py       # goes on where it stopped
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from tables import Table

from fewer.core.option import Option
from fewer.data.photos import real_photos
from fewer.engine.apply import apply_options
from fewer.engine.judge import Judge
from fewer.engine.prepare import prepare
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.reports import environment

HERE = Path(__file__).parent / "results"
COLUMNS = (
    "model", "option", "seed", "calibration", "heldout_error", "calibration_error", "quality_name", "quality",
    "cpu_seconds",
)  # fmt: skip
CELLS = (
    ("fewer/dinov2-small", "block:16x16@0.5", (40, 64, 128, 256, 400)),
    ("fewer/dinov2-small", "block:16x4@0.5", (40, 64, 128, 256)),
    ("fewer/dinov2-small", "unstructured@0.5", (40, 64, 128, 256)),
    ("fewer/mobilenet-v2", "unstructured@0.5", (40, 64, 128, 256)),
)


def measure(model: str, option: str, seed: int, count: int) -> dict[str, str]:
    wanted = Option.parse(option)
    settings = Settings(pattern=wanted.pattern, calibration=count, heldout=32, seed=seed)
    prepared = prepare(model, [photo.path for photo in real_photos()], settings)
    names = [unit.name for unit in prepared.matched.units]
    ladder = (Option(), Option(wanted.pattern, wanted.sparsity / 2), wanted)
    began = time.process_time()
    net, _ = apply_options(Work(prepared, settings), dict.fromkeys(names, ladder), dict.fromkeys(names, wanted))
    seconds = time.process_time() - began
    task = prepared.loaded.task
    held = Judge(prepared.model, prepared.heldout, task=task).judge(net)
    known = Judge(prepared.model, prepared.calibration[:32], task=task).judge(net)
    return {
        "heldout_error": f"{held.distortion:.5f}",
        "calibration_error": f"{known.distortion:.5f}",
        "quality_name": held.name,
        "quality": f"{held.value:.5f}",
        "cpu_seconds": f"{seconds:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--cells", nargs="*", type=int, default=list(range(len(CELLS))), help="numbers of settings")
    parser.add_argument("--out", type=Path, default=HERE / "calibration.csv")
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, 4)
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    args.out.with_suffix(".json").write_text(stamp + "\n", "utf-8")
    for seed in args.seeds:
        for model, option, counts in (CELLS[index] for index in args.cells):
            for count in counts:
                key = dict(zip(COLUMNS[:4], (model, option, str(seed), str(count)), strict=True))
                if key not in table:
                    table.add(key | measure(model, option, seed, count))


if __name__ == "__main__":
    main()
