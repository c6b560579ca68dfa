"""LPViT's method beside ours and uniform blocks, at the same FLOPs in the same blocks, with and without its power term.

    python benchmarks/lpvit.py --budgets 0.7,0.5 --seeds 0

DINOv2 ViT-S on real photos, nothing trained. The power term is tried with the physically right sign (layers that draw
much power are cut more), with that of the published code (cut less), and left out. Each row is a whole model, judged on
held-out photos. Without a repair it is put together from the weights that were stored when distortion was measured,
which are those of a run up to their rounding to half precision; with one it is made as a run makes it, layer by layer
in the order of execution. Finished rows are kept: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from tables import read, write

from fewer.core.allocation.allocate import allocate
from fewer.core.allocation.power import power_shares, with_power
from fewer.core.budget import Budget
from fewer.data.photos import real_photos
from fewer.engine.apply import apply_options
from fewer.engine.assembly import Assembly
from fewer.engine.judge import Judge, Quality
from fewer.engine.plan import choose
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.rivals import rival_settings
from fewer.engine.sense import Sensed, resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.tokens import choose_tokens
from fewer.engine.work import Work

RESULTS = Path(__file__).parent / "results" / "lpvit.csv"


@dataclass(frozen=True)
class Row:
    """One method: whose curves and repair (``lpvit`` or ``default``), which plan, which weight of the power term."""

    label: str
    preset: str
    plan: str = "dp"
    power: float = 0.0
    tokens: bool = False


ROWS = (
    Row("lpvit", "lpvit", power=1.0),
    Row("lpvit, power 0.1", "lpvit", power=0.1),
    Row("lpvit, power 0.02", "lpvit", power=0.02),
    Row("lpvit, no power term", "lpvit"),
    Row("lpvit, sign of the published code", "lpvit", power=-1.0),
    Row("lpvit's cut, uniform", "lpvit", plan="uniform"),
    Row("default (ours)", "default"),
    Row("default with --tokens", "default", tokens=True),
    Row("our cut and repair, uniform", "default", plan="uniform"),
)


class Bench:
    """Everything of one seed; curves are sensed when the first row asks for them."""

    def __init__(self, args: argparse.Namespace, seed: int, scratch: Path) -> None:
        changes = {"seed": seed, "backend": "serial", "workers": 1, "calibration": args.calibration, "heldout": 16}
        changes["sparsities"] = tuple(round(0.1 * i, 1) for i in range(1, 10))
        self.settings = Settings.from_preset("lpvit", **changes)
        files = [photo.path for photo in real_photos()]
        self.prepared: Prepared = prepare(args.model, files, self.settings)
        self.judge = Judge(self.prepared.model, self.prepared.heldout)
        self.scratch, self.seed = scratch, seed
        self._sensed: dict[str, tuple[Settings, Sensed, Assembly]] = {}

    def sensed(self, preset: str) -> tuple[Settings, Sensed, Assembly]:
        if preset not in self._sensed:
            settings = resolved(self.prepared, rival_settings(preset, self.settings))
            store = self.scratch / f"{preset}-{self.seed}"
            store.mkdir(parents=True, exist_ok=True)
            # only what is put together from stored weights needs them stored
            kept = store if settings.compensation == "none" else None
            sensed = sense_curves(Work(self.prepared, settings), ledger_path=store / "ledger.jsonl", store=kept)
            assembly = Assembly.of(
                self.prepared.model, sensed.curves, store, self.prepared.calibration[:1], self.prepared.forward
            )
            self._sensed[preset] = settings, sensed, assembly
        return self._sensed[preset]

    def run(self, row: Row, share: float) -> dict[str, Any]:
        settings, sensed, assembly = self.sensed(row.preset)
        budget = [Budget("flops", share, True)]
        if row.tokens:
            sensed = choose_tokens(Work(self.prepared, settings), sensed, budget)
        curves = sensed.curves
        # the library refuses a negative weight; with_power takes it for this comparison
        choice = (
            allocate(with_power(curves, "flops", row.power), budget).choice
            if row.power
            else choose(curves, budget, row.plan).choice
        )
        chosen = sensed.chosen(choice, curves)
        began = perf_counter()
        if settings.compensation == "none":
            found: list[Quality] = []
            assembly.evaluate(choice, lambda model: found.append(self.judge.judge(model)) or 0.0)
            quality = found[0]
        else:
            tokens = curves.meta.get("tokens")
            work = Work(self.prepared, settings)
            quality = self.judge.judge(apply_options(work, sensed.options, chosen, tokens=tokens)[0])
        drawn = sum(float(p[k]) for p, k in zip(power_shares(curves), choice, strict=True))
        return {
            "flops": curves.total("flops", choice) / curves.dense("flops"),
            "power_share": drawn,
            "distortion": quality.distortion,
            "cosine": quality.value,
            "tokens": curves.meta.get("tokens", {}).get("name", ""),
            "sum_of_distortions": curves.distortion(choice),
            "seconds": round(perf_counter() - began, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fewer/dinov2-small")
    parser.add_argument("--budgets", default="0.7,0.5")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "fewer-lpvit")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    rows = read(args.out)
    done = {(r["model"], r["seed"], r["budget"], r["method"]) for r in rows}
    for seed in map(int, args.seeds.split(",")):
        bench = None
        for share in map(float, args.budgets.split(",")):
            for row in ROWS:
                key = (args.model, str(seed), str(share), row.label)
                if key in done:
                    continue
                bench = bench or Bench(args, seed, args.scratch)
                named = dict(zip(("model", "seed", "budget", "method"), key, strict=True))
                rows.append({**named, "power": row.power, **bench.run(row, share)})
                write(rows, args.out)
                print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
