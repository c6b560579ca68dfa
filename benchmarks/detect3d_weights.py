"""Train the small detector that `fewer demo detect3d` starts from, and keep it inside the package.

Everything is simulated: the detector has seen no real road. Its AP is that of simulated scenes which neither trained
nor chose the weights; it stands in ``detector.json`` beside them. A run that was stopped goes on. With
``--further 3000`` a second training goes on from the first one, on other scenes; the kept detector has had none.

    python benchmarks/detect3d_weights.py --work /tmp/weights
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from fewer.models.spec import load_model
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.loaded import detector_of
from fewer.tasks.detect3d.scoring import score_detector
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.training import save_detector, train

PLACE = Path(__file__).parents[1] / "src/fewer/tasks/detect3d/weights"
TRAINED_ON, JUDGED_ON, FURTHER_ON = 1, 2, 6
"""Seeds of the streets: those that judge are other ones than those that train."""
NEAR = (0.0, -12.8, -3.0, 25.6, 12.8, 1.0)
"""Field of the detectors on voxels, which take longer to train: 26 metres ahead, 13 to each side."""


def streets(work: Path, seed: int, count: int, val: float) -> Path:
    """Simulated scans of a 64-beam sensor, 45 degrees to both sides."""
    root = work / f"streets-{seed}-{count}"
    if not (root / "SIMULATED.txt").exists():
        Streets(SENSORS["hdl-64"].ahead(45), seed=seed).write(root, count, val=val)
    return root


def settings_of(network: str, steps: int, seed: int = 0) -> TrainSettings:
    """Of the training: a short field, cars alone, many small steps."""
    on_pillars = network in ("pointpillars", "centerpoint-pillar")
    return TrainSettings(
        network=network, size="short", classes=("Car",), steps=steps, every=max(1, steps // 5), judges=20, set_in=8,
        batch=2, seed=seed, reach=None if on_pillars else NEAR,
    )  # type: ignore[arg-type]  # fmt: skip


def trained(work: Path, network: str, scans: int, steps: int, seed: int = 0) -> Path:
    """A run folder; a training that was stopped goes on."""
    run = work / f"{network}-{steps}-{seed}"
    if not (run / "report.json").exists():
        settings = settings_of(network, steps, seed)
        data = streets(work, TRAINED_ON if settings.reach is None else FURTHER_ON, scans, 20 / scans)
        train(data, out=run, settings=settings, resume=run.exists())
    return run


def trained_further(work: Path, run: Path, scans: int, steps: int, seed: int = 0, time: str | None = None) -> Path:
    """A second training, from a run, on other scenes, at a lower rate; the weights are averaged over the last steps."""
    further = work / f"{run.name}-further-{steps}"
    if not (further / "report.json").exists():
        data = streets(work, FURTHER_ON, scans, 20 / scans)
        first = settings_of(detector_of(load_model(str(run))).config.network, steps, seed)
        changed = {"init": str(run), "learning_rate": 2e-3, "rate_warm_up": 0.1, "average": 0.999}
        changed |= {"time": time, "every": 500} if time else {}
        settings = TrainSettings.of({**first.model_dump(exclude={"network", "classes", "reach"}), **changed})
        train(data, out=further, settings=settings, resume=further.exists())
    return further


def main() -> None:
    """Simulate, train, judge, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", default="pointpillars")
    parser.add_argument("--scans", type=int, default=320)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--further", type=int, default=0, help="steps of a second training")
    parser.add_argument("--time", help="end the second training after so long, such as 30min, in place of after steps")
    parser.add_argument("--start", type=Path, help="run folder in the place of the first training")
    parser.add_argument("--judged", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--place", type=Path, default=PLACE)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = args.start or trained(args.work, args.network, args.scans, args.steps, args.seed)
    if args.further:
        run = trained_further(args.work, run, args.scans, args.further, args.seed, args.time)
    detector = detector_of(load_model(str(run)))
    judged = open_data(streets(args.work, JUDGED_ON, args.judged, 1.0))
    scores = score_detector(detector, judged, judged.labelled())[0]
    save_detector(args.place, detector, None)
    ap = {level: round(scores.ap("Car", level) or 0, 2) for level in ("easy", "moderate", "hard")}
    facts = {
        "script": f"benchmarks/detect3d_weights.py --network {args.network} --scans {args.scans} --steps {args.steps} "
        f"--further {args.further}",
        "seed": args.seed,
        "streets": {"train": TRAINED_ON, "further": FURTHER_ON, "judged": JUDGED_ON},
        "scans": {"train": args.scans, "further": args.scans, "judged": args.judged},
        "simulated AP R40, 3-D, overlap 0.7": ap,
        "parameters": sum(p.numel() for p in detector.parameters()),
    }
    (args.place / "detector.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
