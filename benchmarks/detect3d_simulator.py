"""Simulated scans beside real ones: points of a frame, points by elevation, points of a car by its distance.

The real frames are 14 of KITTI (npz, one a file; see ``fewer.tasks.detect3d.real_frames``); both sides are cut to the
camera's view. The simulated side is made up: where it differs, the table says by how much.

    python benchmarks/detect3d_simulator.py --real ../shared/data/kitti_lidar --scenes 20
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fewer.core.stamp import environment
from fewer.tasks.detect3d.boxes import points_in_boxes
from fewer.tasks.detect3d.frames import Frame
from fewer.tasks.detect3d.kitti import Calibration, parse_calibration, parse_label
from fewer.tasks.detect3d.real_frames import kitti_frames
from fewer.tasks.detect3d.simulator import SENSORS, Streets

RESULTS = Path(__file__).parent / "results"
BANDS = ((0, 10), (10, 20), (20, 30), (30, 45), (45, 80))


def real(folder: Path) -> list[Frame]:
    """The stored frames, cut to the camera's view."""
    frames = []
    for stored in kitti_frames(folder):
        calibration = parse_calibration(stored.calibration)
        points = stored.points[calibration.in_view(stored.points)]
        objects = parse_label(stored.label or "", calibration)
        objects = objects.take(~np.isnan(objects.boxes).any(1)) if len(objects) else objects
        frames.append(Frame(stored.name, points, objects, stored.label is not None))
    return frames


def simulated(count: int) -> list[Frame]:
    """As many scenes, cut in the same way."""
    streets, camera = Streets(SENSORS["hdl-64"].ahead(45), seed=1), Calibration.usual()
    frames = [streets.frame(i) for i in range(count)]
    return [Frame(f.name, f.points[camera.in_view(f.points)], f.objects) for f in frames]


def rows_of(name: str, frames: Iterable[Frame]) -> list[dict[str, object]]:
    """Numbers of one side."""
    frames, rows = list(frames), []

    def put(what: str, where: str, values: list[float]) -> None:
        if values:
            low, middle, high = np.percentile(values, [10, 50, 90])
            facts = {"side": name, "what": what, "where": where, "count": len(values)}
            rows.append(facts | {"p10": round(low, 3), "median": round(middle, 3), "p90": round(high, 3)})

    put("points of a frame", "", [float(len(f.points)) for f in frames])
    put("intensity", "", [float(np.median(f.points[:, 3])) for f in frames])
    for low, high in ((-25, -15), (-15, -8), (-8, -4), (-4, 0), (0, 3)):
        shares = []
        for f in frames:
            up = np.rad2deg(np.arctan2(f.points[:, 2], np.hypot(f.points[:, 0], f.points[:, 1])))
            shares.append(float(((up >= low) & (up < high)).mean()))
        put("share of the points", f"{low} to {high} degrees", shares)
    for low, high in BANDS:
        counts = []
        for f in frames:
            cars = f.objects.of(["Car"])
            away = np.hypot(*cars.boxes[:, :2].T)
            inside = points_in_boxes(f.points, cars.boxes, 0.05).sum(1)
            counts += [float(n) for n, d in zip(inside, away, strict=True) if low <= d < high]
        put("points of a car", f"{low} to {high} m", counts)
    return rows


def plot(rows: list[dict], path: Path) -> None:
    """Points of a car against its distance, both sides."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for side, colour in (("real", "black"), ("simulated", "tab:orange")):
        own = [r for r in rows if r["side"] == side and r["what"] == "points of a car"]
        middle = [np.mean([float(v) for v in r["where"].replace(" m", "").split(" to ")]) for r in own]
        values = np.array([[r["p10"], r["median"], r["p90"]] for r in own], dtype=float)
        axes.plot(middle, values[:, 1], "o-", color=colour, label=side)
        axes.fill_between(middle, values[:, 0].clip(0.5), values[:, 2], color=colour, alpha=0.15)
    axes.set(yscale="log", xlabel="distance of the car, m", ylabel="points in its box", title="Median, and 10 to 90 %")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "detect3d_simulator.csv")
    args = parser.parse_args()
    rows = rows_of("real", real(args.real)) + rows_of("simulated", simulated(args.scenes))
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, args.out.with_suffix(".svg"))
    args.out.with_suffix(".json").write_text(json.dumps(environment(), indent=1) + "\n")


if __name__ == "__main__":
    main()
